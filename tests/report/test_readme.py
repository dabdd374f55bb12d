"""The README's sections: made between their marks, from what is published, or not at all."""

import pandas as pd
import pytest
from made_runs import RESULTS, differences_of

from nlalib.report import readme
from nlalib.report.claims import CONVERGED
from nlalib.report.frame import SETTING
from nlalib.report.ledger import ledger

HEADLINE, HEADLINE_END = readme.readme_marks("headline table")
DIFFERENCES, DIFFERENCES_END = readme.readme_marks("differences")
BOTH = f"{HEADLINE}{HEADLINE_END} {DIFFERENCES}{DIFFERENCES_END}"


@pytest.fixture
def published(project, monkeypatch):
    """The project with a published study; no claim is about it."""
    root, run = project
    of_tables = {n: s for n, s in readme.README_SECTIONS.items() if n != "claims"}
    monkeypatch.setattr(readme, "MADE_SECTIONS", {"README.md": of_tables})
    (root / "results").mkdir()
    RESULTS.to_csv(root / "results" / "tiny.csv", index=False)
    differences = differences_of("nla", 0.1, [("overall_accuracy", -1), ("mean_accuracy", 2)])
    pd.DataFrame(differences).to_csv(root / "results" / "tiny_differences.csv", index=False)
    columns = [*SETTING, "run_id", "seed", "epoch", "metric", "value"]
    pd.DataFrame(columns=columns).to_csv(root / "results" / "tiny_epochs.csv", index=False)
    return root, run


def test_readme_changes_between_its_marks_alone(published):
    root, run = published
    before, between = "# Title\n\ntext | with | bars\n\n", "\n\nand the differences\n\n"
    after = "\n\n## More\nlast line without end"
    (root / "README.md").write_text(
        f"{before}{HEADLINE}\nold table\n{HEADLINE_END}{between}"
        f"{DIFFERENCES}\nold table\n{DIFFERENCES_END}{after}"
    )
    assert run("readme") == 0
    first = (root / "README.md").read_text()
    assert first.startswith(f"{before}{HEADLINE}\n")
    assert f"\n{HEADLINE_END}{between}{DIFFERENCES}\n" in first
    assert first.endswith(f"\n{DIFFERENCES_END}{after}")
    assert "old table" not in first
    assert "73.0 ± 3.6" in first.partition(between)[0]
    assert "-1.0 [-2.0, +0.0]" in first.partition(between)[2]
    assert first.count("| tiny |") == 6 + 1
    assert run("readme") == 0
    assert (root / "README.md").read_text() == first


@pytest.mark.parametrize(
    "text",
    ["no marks", BOTH.replace(HEADLINE, ""), BOTH.replace(DIFFERENCES_END, ""), BOTH + BOTH,
     f"{DIFFERENCES_END}{DIFFERENCES}{HEADLINE}{HEADLINE_END}"],
    ids=repr,
)  # fmt: skip
def test_readme_without_its_marks_is_left_alone(published, capsys, text):
    root, run = published
    (root / "README.md").write_text(text)
    assert run("readme") == 1
    assert "README.md must hold once, in this order" in capsys.readouterr().err
    assert (root / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("tiny.csv", "no table in results/; publish a finished study first"),
        ("tiny_differences.csv", "tiny_differences.csv; publish the finished study first"),
    ],
)
def test_readme_without_published_results(published, capsys, removed, message):
    root, run = published
    (root / "README.md").write_text(BOTH)
    (root / "results" / removed).unlink()
    assert run("readme") == 1
    assert message in capsys.readouterr().err
    assert (root / "README.md").read_text() == BOTH


def test_the_answer_names_each_verdict_and_the_rule_that_it_hangs_on():
    claims = ledger()
    main = claims["regime"] == CONVERGED
    claims["verdict"] = claims["verdict"].where(claims["verdict"] == "not run", "inconclusive")
    assert readme.answer(claims).startswith("- **Does it work?** Not settled yet.\n")
    claims.loc[main & (claims["number"] == 10), "verdict"] = "falsified"
    is_last = claims["selection"] == "last"
    claims.loc[main & (claims["number"] == 8) & is_last, "verdict"] = "verified"
    assert readme.answer(claims).splitlines()[0] == (
        "- **Does it work?** **Verified:** It gains under label noise (8, at the last epoch "
        "alone). **Falsified:** It leads its peers (10). **No verdict yet:** the other 12 claims."
    )
