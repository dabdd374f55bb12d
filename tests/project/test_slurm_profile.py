"""GPUs as a resource: what Slurm would be asked for, and who gets which GPU of one machine."""

import os
import re
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from nlalib.paths import ROOT
from nlalib.report.studies import read_study

STUDY = "configs/embedded.yaml"


def dry_run(folder, *words: str, **environment: str) -> str:
    """What snakemake says that it would do, with an empty folder for runs."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "SLURM_"))}
    finished = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--printshellcmds", *words],
        cwd=ROOT,
        env={**given, **environment, "NLA_RUNS": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    report = finished.stdout + finished.stderr
    assert finished.returncode == 0, report
    return report


def test_each_run_is_a_job_with_one_gpu(tmp_path):
    """With the profile; the plugin itself says what Slurm is asked for."""
    pytest.importorskip(
        "snakemake_executor_plugin_slurm", reason="snakemake-executor-plugin-slurm is missing"
    )
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    # Of a rule with a message snakemake shows no resources.
    rules = re.sub(r" +message:\n +.*\n", "", (ROOT / "Snakefile").read_text())
    (tmp_path / "Snakefile").write_text(rules)
    report = dry_run(
        tmp_path / "runs",
        *("--snakefile", str(tmp_path / "Snakefile"), "--directory", str(ROOT)),
        *("--profile", "profiles/slurm", "--config", f"study={STUDY}", "local_gpus=2"),
    )
    lines = re.findall(r"^rule train:.*?^    resources: (.*?)$", report, flags=re.M | re.S)
    jobs = [dict(item.split("=", 1) for item in line.split(", ")) for line in lines]
    assert len(jobs) == len(read_study(STUDY).runs)
    for job in jobs:
        assert job["gpu"] == "1"
        assert int(job["runtime"]) >= 60
        asked = set_gres_string(SimpleNamespace(resources={"gpu": int(job["gpu"])}))
        assert re.search(r"--gpus[= ]1\b", asked), asked


def test_job_that_was_sent_off_takes_the_gpus_that_slurm_gave_it(tmp_path):
    words = ["--mode", "remote", "--cores=4", "--config", f"study={STUDY}", "local_gpus=2"]
    report = dry_run(tmp_path, *words, SLURM_JOB_ID="1", CUDA_VISIBLE_DEVICES="1")
    assert report.count("Shell command: papermill") == len(read_study(STUDY).runs)
    assert "export CUDA_VISIBLE_DEVICES" not in report


def test_profile_goes_on_with_runs_that_were_cut_off():
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert profile["restart-times"] > 0
    assert profile["rerun-incomplete"]


def taking_gpus(folder: Path, study: str = STUDY, **environment: str) -> list[str]:
    """Return the words that stand before a training command, on a machine with two GPUs."""
    words = ["--cores=4", "--config", f"study={study}", "local_gpus=2"]
    words += [f"runs_per_gpu={environment.pop('runs_per_gpu', '1')}"]
    report = dry_run(folder, *words, **environment)
    commands = set(re.findall(r"^Shell command: (python -m .*? -- )papermill ", report, flags=re.M))
    assert len(commands) == 1
    return commands.pop().split()[1:]


def start(taking: list[str], runs: Path) -> subprocess.Popen:
    """Start a real command, which holds its GPUs until its input ends."""
    command = ["bash", "-c", "echo $CUDA_VISIBLE_DEVICES; read"]
    return subprocess.Popen(
        [sys.executable, *taking, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NLA_RUNS": str(runs), "PYTHONPATH": str(ROOT)},
    )


def end(process: subprocess.Popen) -> None:
    process.communicate("\n")


def is_silent(process: subprocess.Popen) -> bool:
    return select.select([process.stdout], [], [], 3)[0] == []


def test_two_runs_have_a_gpu_each_and_the_third_waits(tmp_path):
    taking = taking_gpus(tmp_path)
    first = [start(taking, tmp_path), start(taking, tmp_path)]
    held = [process.stdout.readline().strip() for process in first]
    assert Counter(held) == Counter(["0", "1"])
    third = start(taking, tmp_path)
    assert is_silent(third)
    end(first[1])
    assert third.stdout.readline().strip() == held[1]
    end(first[0])
    end(third)


def test_runs_share_what_a_user_or_an_allocation_lets_them_see(tmp_path):
    seen = taking_gpus(tmp_path, CUDA_VISIBLE_DEVICES="3,5", SLURM_JOB_ID="1")
    assert seen[seen.index("--gpus") + 1] == "3,5"
    hidden = dry_run(
        tmp_path, "--cores=4", "--config", f"study={STUDY}", "local_gpus=2", CUDA_VISIBLE_DEVICES=""
    )
    assert "gpu_slots" not in hidden


def test_a_run_of_two_gpus_asks_for_both(tmp_path):
    study = yaml.safe_load((ROOT / STUDY).read_text())
    study["grid"] = {"method": ["ce"], "seed": [0]}
    study["fixed"] |= {"processes": 2}
    (tmp_path / "two gpus.yaml").write_text(yaml.safe_dump(study))
    both = taking_gpus(tmp_path, str(tmp_path / "two gpus.yaml"))
    assert both[both.index("--wanted") + 1] == "2"


def test_a_study_says_how_many_runs_share_a_gpu(tmp_path):
    shared = taking_gpus(tmp_path / "a folder", runs_per_gpu="3")
    assert shared[shared.index("--runs-per-gpu") + 1] == "3"


def test_folders_with_spaces_are_quoted(tmp_path):
    report = dry_run(tmp_path / "my runs", "--cores=1", "--config", f"study={STUDY}")
    commands = re.findall(r"^Shell command: (.*)$", report, flags=re.M)
    assert commands
    for command in commands:
        assert "my runs" not in re.sub(r"'[^']*'", "", command), command
