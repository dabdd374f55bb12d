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


def taking_gpus(folder: Path, study: str = STUDY, **environment: str) -> str:
    """Return the shell commands before a training command, on a machine with two GPUs."""
    words = ["--cores=4", "--config", f"study={study}", "local_gpus=2"]
    report = dry_run(folder, *words, **environment)
    commands = set(
        re.findall(r"^Shell command: (mkdir -p .*?)papermill ", report, flags=re.MULTILINE)
    )
    assert len(commands) == 1
    return commands.pop()


def start(taking: str) -> subprocess.Popen:
    """Start a real shell, which holds its GPUs until its input ends."""
    command = f"{taking} echo $CUDA_VISIBLE_DEVICES; read"
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", command], stdin=pipe, stdout=pipe, text=True)


def end(shell: subprocess.Popen) -> None:
    shell.communicate("\n")


def is_silent(shell: subprocess.Popen) -> bool:
    return select.select([shell.stdout], [], [], 1.5)[0] == []


def test_two_runs_have_a_gpu_each_and_the_third_waits(tmp_path):
    taking = taking_gpus(tmp_path)
    shells = [start(taking), start(taking)]
    held = [shell.stdout.readline().strip() for shell in shells]
    assert Counter(held) == Counter(["0", "1"])
    third = start(taking)
    assert is_silent(third)
    end(shells[1])
    assert third.stdout.readline().strip() == held[1]
    end(shells[0])
    end(third)


def test_runs_share_what_a_user_or_an_allocation_lets_them_see(tmp_path):
    taking = taking_gpus(tmp_path, CUDA_VISIBLE_DEVICES="3,5", SLURM_JOB_ID="1")
    shells = [start(taking), start(taking)]
    assert {shell.stdout.readline().strip() for shell in shells} == {"3", "5"}
    third = start(taking)
    assert is_silent(third)
    for shell in (*shells, third):
        end(shell)
    hidden = dry_run(
        tmp_path, "--cores=4", "--config", f"study={STUDY}", "local_gpus=2", CUDA_VISIBLE_DEVICES=""
    )
    assert "export CUDA_VISIBLE_DEVICES" not in hidden


def test_run_of_two_gpus_waits_for_both_and_holds_none_meanwhile(tmp_path):
    study = yaml.safe_load((ROOT / STUDY).read_text())
    study["grid"] = {"method": ["ce"], "seed": [0]}
    study["fixed"] |= {"processes": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(study))
    one, both = taking_gpus(tmp_path), taking_gpus(tmp_path, str(tmp_path / "two.yaml"))
    first = start(one)
    assert first.stdout.readline().strip() == "0"
    pair = start(both)
    assert is_silent(pair)
    # In vain it has looked at the second GPU, which so must be free for others most of the time.
    second = start(one)
    assert second.stdout.readline().strip() == "1"
    end(first)
    assert is_silent(pair)
    end(second)
    assert pair.stdout.readline().strip() == "0,1"
    end(pair)
