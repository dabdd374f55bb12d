"""`make report`: a finished study as one HTML file."""

import base64
import os
import re
import subprocess
import sys

import pandas as pd
import yaml
from made_runs import LABELS, RESULTS, write_run
from PIL import Image

from nlalib import __main__ as command_line
from nlalib.paths import ROOT
from nlalib.report import collect
from nlalib.report.frame import headline
from nlalib.report.front_page import front_page
from nlalib.report.studies import read_study

STUDY = {
    "study": "tiny",
    "title": "A tiny study",
    "notebooks": {},
    "fixed": {"epochs": 4},
    "grid": {"method": ["ce", "nla"], "seed": [0, 1]},
}


def test_a_column_of_one_value_is_told_in_words():
    table = headline(RESULTS)
    page = front_page("A title", "passed", table, ["nla - ce: +1.0"])
    assert page.startswith("A title\n=======\n\nGate: passed.\n")
    assert "data set rendered; setting noise 10%; network small" in page
    assert "<td>small" not in page
    for value in table["overall accuracy %"]:
        assert f">{value}</td>" in page
    assert "\n- nla - ce: +1.0\n" in page


def test_report_of_a_study_holds_table_and_figures_and_asks_no_network(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("NLA_RUNS", str(tmp_path / "my runs"))
    monkeypatch.setattr(collect, "load_dataset", lambda choice: (pd.DataFrame(), None))
    numbers = pd.DataFrame({"epoch": [0, 1], "metric": "accuracy_given", "value": [1 / 3, 0.5]})
    monkeypatch.setattr(collect, "run_epoch_numbers", lambda config, index: numbers)
    path = tmp_path / "my study.yaml"
    path.write_text(yaml.safe_dump(STUDY))

    def run(command: str) -> int:
        monkeypatch.setattr("sys.argv", ["nlalib", command, str(path)])
        return command_line.main()

    assert run("front") == 1
    assert "run the study tiny to its end (make study)" in capsys.readouterr().err
    study = read_study(path)
    for config in study.runs.values():
        write_run(config, [2 + config.seed > LABELS] * 4)
        (config.folder / "executed").touch()
    assert run("collect") == 0
    for name in ("notebooks", "figures"):
        (study.folder / name).mkdir()
    (study.folder / "notebooks" / "06_main_results.ipynb").touch()
    figure = study.folder / "figures" / "06_accuracy.png"
    Image.new("RGB", (3, 2), "#0072B2").save(figure)

    capsys.readouterr()
    assert run("front") == 0
    page = capsys.readouterr().out.strip()
    words = ["report_page", "--quiet", "--nolock", "--config", f"study={path}", "--report", page]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words], cwd=ROOT, env=os.environ, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    html = (study.folder / "report.html").read_text()
    assert "A tiny study" in html
    for table in ("results.csv", "differences.csv"):
        assert f"my runs/study-tiny/{table}" in html
    assert base64.b64encode(figure.read_bytes()).decode() in html
    assert "35.7" in html  # 2 of 7 classes are predicted right, and 3 with the other seed
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?https?:", html)
