"""The README's sections: made between their marks, from what is published, or not at all."""

import pandas as pd
import pytest
from made_runs import RESULTS

from nlalib.report import readme
from nlalib.report.frame import SETTING
from nlalib.report.studies import read_study

HEADLINE, HEADLINE_END = readme.readme_marks("headline table")
SECOND, SECOND_END = readme.readme_marks("second")
BOTH = f"{HEADLINE}{HEADLINE_END} {SECOND}{SECOND_END}"


@pytest.fixture
def published(project, monkeypatch):
    """The project with a published study; no claim is about it."""
    root, run = project
    sections = {"headline table": readme.headline_section, "second": lambda: "the second"}
    monkeypatch.setattr(readme, "MADE_SECTIONS", {"README.md": sections})
    (root / "results").mkdir()
    RESULTS.to_csv(root / "results" / "tiny.csv", index=False)
    columns = [*SETTING, "run_id", "seed", "epoch", "metric", "value"]
    pd.DataFrame(columns=columns).to_csv(root / "results" / "tiny_epochs.csv", index=False)
    return root, run


def test_readme_changes_between_its_marks_alone(published):
    root, run = published
    before, between = "# Title\n\ntext | with | bars\n\n", "\n\nand the differences\n\n"
    after = "\n\n## More\nlast line without end"
    (root / "README.md").write_text(
        f"{before}{HEADLINE}\nold table\n{HEADLINE_END}{between}"
        f"{SECOND}\nold table\n{SECOND_END}{after}"
    )
    assert run("readme") == 0
    first = (root / "README.md").read_text()
    assert first.startswith(f"{before}{HEADLINE}\n")
    assert f"\n{HEADLINE_END}{between}{SECOND}\n" in first
    assert first.endswith(f"\n{SECOND_END}{after}")
    assert "old table" not in first
    assert "73.0 ± 3.6" in first.partition(between)[0]
    assert "\n\nthe second\n\n" in first.partition(between)[2]
    assert run("readme") == 0
    assert (root / "README.md").read_text() == first


@pytest.mark.parametrize(
    "text",
    ["no marks", BOTH.replace(HEADLINE, ""), BOTH.replace(SECOND_END, ""), BOTH + BOTH,
     f"{SECOND_END}{SECOND}{HEADLINE}{HEADLINE_END}"],
    ids=repr,
)  # fmt: skip
def test_readme_without_its_marks_is_left_alone(published, capsys, text):
    root, run = published
    (root / "README.md").write_text(text)
    assert run("readme") == 1
    assert "README.md must hold once, in this order" in capsys.readouterr().err
    assert (root / "README.md").read_text() == text


def test_readme_without_published_results(published, capsys):
    root, run = published
    (root / "README.md").write_text(BOTH)
    (root / "results" / "tiny.csv").unlink()
    assert run("readme") == 1
    assert "no table in results/; publish a finished study first" in capsys.readouterr().err
    assert (root / "README.md").read_text() == BOTH


def test_a_study_says_how_many_of_its_runs_are_published(published):
    root, _ = published
    text = (root / "configs" / "tiny.yaml").read_text()
    (root / "configs" / "new.yaml").write_text(text.replace("study: tiny", "study: new"))
    study = read_study(root / "configs" / "tiny.yaml")
    done = [run_id for run_id, run in study.runs.items() if run.method == "ce"]
    pd.DataFrame({"run_id": [*done, "a run of another study"]}).to_csv(
        root / "results" / "tiny_epochs.csv", index=False
    )
    *_, new, tiny = (line.split(" | ") for line in readme.progress_section().splitlines())
    n = len(study.runs)
    assert [new[0], *new[2:]] == ["| [new](configs/new.yaml)", f"0 of {n}", "ce, nla |"]
    assert [tiny[0], *tiny[2:]] == ["| [tiny](configs/tiny.yaml)", f"{len(done)} of {n}", "nla |"]


def test_a_table_has_a_row_a_method_and_a_column_a_rule():
    shared = {"data set": "ferplus", "network": "small", "init": "random", "seeds": 3}
    rows = [
        {"method": method, "setting": "", "epochs": epochs, "epoch chosen": rule, **shared,
         "overall accuracy %": f"{value} ± 1", "mean accuracy %": f"{value - 10} ± 2"}
        for method, epochs, rule, value in
        [("ce", 6, "last", 70), ("ce", 6, "best", 71), ("nla", 8, "last", 72)]
    ]  # fmt: skip
    first, _, header, _, *table = readme.accuracy_table(pd.DataFrame(rows)).splitlines()
    assert first == "data set ferplus, network small, init random, seeds 3"
    assert header == "| method | setting | epochs | last | best |"
    assert table == [
        "| ce |  | 6 | 70 ± 1 / 60 ± 2 | 71 ± 1 / 61 ± 2 |",
        "| nla |  | 8 | 72 ± 1 / 62 ± 2 |  |",
    ]
