"""The table of labels that people give: its columns, its twins, and its digest."""

import pytest

from nlalib.__main__ import main
from nlalib.data.choice import DataChoice
from nlalib.data.label_sources import VOTE_SOURCES, transition_table
from nlalib.data.sets.rendered import rendered_index
from nlalib.prepare.human_labels import label_columns, labels_digest, summary

CHOICE = DataChoice()


@pytest.fixture(scope="module")
def index():
    return rendered_index(train=150, test=20, seed=0)


def test_each_source_stands_beside_a_twin_with_its_matrix(index):
    table = label_columns(CHOICE, index)
    train = index[index["split"] == "train"]
    assert table["image_id"].tolist() == train["image_id"].tolist()
    assert table["rule"].tolist() == train["label"].tolist()
    assert len(table.columns) == 2 + 2 * len(VOTE_SOURCES)
    for source in VOTE_SOURCES:
        chosen = DataChoice(label_source=source)
        assert table[source].tolist() == chosen.set.given_labels(train, chosen).tolist()
        of_source, of_twin = (
            transition_table(table["rule"], table[name], 7).to_numpy().tolist()
            for name in (source, f"{source}_matched")
        )
        assert of_source == of_twin
        assert (table[source] != table[f"{source}_matched"]).any()


def test_digest_tells_labels_and_not_the_order_of_rows(index):
    table = label_columns(CHOICE, index)
    digest = labels_digest(table)
    assert labels_digest(table.sample(frac=1, random_state=0)) == digest
    assert labels_digest(label_columns(CHOICE, index)) == digest
    others = [label_columns(CHOICE, index, seed=1), label_columns(DataChoice(data_seed=1), index)]
    changed = table.assign(rule=table["rule"].where(table.index > 0, (table["rule"] + 1) % 7))
    renamed = table.assign(image_id="x" + table["image_id"])
    digests = {labels_digest(other) for other in (*others, changed, renamed)}
    assert len(digests | {digest}) == 5


def test_summary_counts_classes_and_wrong_labels(index):
    table = label_columns(CHOICE, index)
    found = summary(table, 7)
    assert found.drop(columns="wrong").sum(axis=1).tolist() == [150] * len(found)
    assert found.at["rule", "wrong"] == "0.00%"
    wrong = (table["worst_vote"] != table["rule"]).sum()
    assert found.at["worst_vote", "wrong"] == f"{wrong / 150:.2%}"


def test_missing_set_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["nlalib", "labels", "ferplus", "--root", str(tmp_path / "nowhere")]
    )
    assert main() == 1
    assert "error: there is no folder" in capsys.readouterr().err
