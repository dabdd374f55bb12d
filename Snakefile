# A study's workflow: `make study CONFIG=configs/<study>.yaml`.
# Every step calls papermill on a notebook; what is done is not done again.
#
# On the CPU as many runs go side by side as --cores has, each with one thread (the Makefile sets
# OMP_NUM_THREADS). On a machine with GPUs each run has one for itself and waits for it, so
# --cores may be larger; --resources gpu=N keeps the waiting runs from starting at all. With
# --config runs_per_gpu=N as many share a GPU. On Slurm
# (--profile profiles/slurm) each run is a job that asks for its GPUs.
import os
import shlex
from pathlib import Path

import yaml

from nlalib.paths import display_path, runs_folder
from nlalib.report.records import kept_runs
from nlalib.report.studies import PRETRAINING_NOTEBOOK, TRAINING_NOTEBOOK, read_study

STUDY_FILE = config.get("study", "configs/embedded.yaml")
study = read_study(STUDY_FILE)
# With --config kept=1 runs whose predictions are kept in results/ count as done.
KEPT = kept_runs(study.name) if int(config.get("kept", 0)) else frozenset()
RUNS = display_path(runs_folder())
FOLDER = display_path(study.folder)
FIGURES = [display_path(path) for path in sorted((study.folder / "figures").glob("*.png"))]
# As words of a shell command: their paths may hold spaces.
RUNS_WORD, FOLDER_WORD, STUDY_WORD = map(shlex.quote, (RUNS, FOLDER, STUDY_FILE))
PAPERMILL = "papermill --no-progress-bar --log-level WARNING"
# Of what a training run prints, its lines on epochs go to the terminal.
EPOCHS_TO_TERMINAL = "--stdout-file >(grep --line-buffered epoch >&2)"

# How many GPUs a process asks for: --config gpu=0 trains on machines that have none to give.
GPU = int(config.get("gpu", 1))
# A step of a small network leaves most of a large GPU idle: several runs may share one. More than a
# few want NVIDIA's multi-process service (MPS), and each takes memory of its own.
RUNS_PER_GPU = int(config.get("runs_per_gpu", 1))
LOCAL_GPUS = int(config.get("local_gpus", len(list(Path("/dev").glob("nvidia[0-9]*")))))


def gpus_of(wildcards) -> int:
    run = study.runs[wildcards.run_id]
    return 0 if run.device == "cpu" else GPU * run.processes


def take_gpus(wanted: int) -> str:
    """What goes before a command, so that it waits for GPUs of this machine and has them.

    Of a machine's GPUs only those take part that CUDA_VISIBLE_DEVICES names, where somebody has set
    it (a user, or Slurm in an allocation). In a job that snakemake itself has sent off Slurm has
    given the run its GPUs; and where more are wanted than there are, the training says so.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = list(map(str, range(LOCAL_GPUS))) if visible is None else visible.split(",")
    gpus = [gpu for gpu in gpus if gpu]
    if workflow.remote_exec or not 0 < wanted <= len(gpus):
        return ""
    return (
        f"python -m nlalib.training.gpu_slots --gpus {','.join(gpus)} --wanted {wanted} "
        f"--runs-per-gpu {RUNS_PER_GPU} -- "
    )


def as_yaml(parameters: dict) -> str:
    """Parameters as one quoted word; YAML keeps their types (JSON's 1e-05 would become text)."""
    return shlex.quote(yaml.safe_dump(parameters, default_flow_style=True, width=10**6).strip())


def run_parameters(wildcards) -> str:
    return as_yaml(dict(vars(study.runs[wildcards.run_id])))


def pretrained(wildcards) -> list[str]:
    """What a run waits for: the study's own pre-training, if it starts from that."""
    starts_from = Path(study.runs[wildcards.run_id].initial_weights).parent.name
    own = study.pretraining and starts_from == study.pretraining.run_id
    return [f"{RUNS}/{starts_from}/executed"] if own else []


def folders(method: str | None = None) -> list[str]:
    """The folders of the study's runs that are not kept, of one method or of all."""
    chosen = [run_id for run_id, run in study.runs.items() if method in (None, run.method)]
    return [f"{RUNS}/{run_id}" for run_id in chosen if run_id not in KEPT]


def executed(method: str | None = None) -> list[str]:
    """The files that say that the notebooks of the study's runs have run to their end.

    A run's own `done`, which the training writes, is no output of a rule: snakemake removes the
    outputs of a job that fails or is interrupted, and a cell behind the training may fail.
    """
    return [f"{folder}/executed" for folder in folders(method)]


# What report notebooks read of the study: the input files, and the parameters that name them.
REPORTS = {
    "12_weights_in_training": (executed("nla"), {"runs": folders("nla")}),
    "06_main_results": ([f"{FOLDER}/results.csv"], {"tables": [f"{FOLDER}/results.csv"]}),
}
NO_REPORT = ([], {})


def notebook_parameters(wildcards) -> str:
    given = study.notebooks.get(wildcards.notebook, {})
    return as_yaml({**given, **REPORTS.get(wildcards.notebook, NO_REPORT)[1]})


# The front page of `make report`, which `python -m nlalib front` writes.
report: f"{FOLDER}/report.rst"


wildcard_constraints:
    notebook=r"\d\d_\w+",
    run_id=r"[\w.-]+",


rule all:
    input:
        expand(f"{FOLDER}/notebooks/{{name}}.ipynb", name=sorted({*study.notebooks, "06_main_results"})),


# What `make report` shows, of a study that has ended.
rule report_page:
    input:
        rules.all.input,
        # Notebooks write them by the way, as many as they like.
        [report(path, category="Figures", labels={"figure": Path(path).stem}) for path in FIGURES],


if study.pretraining:
    PRETRAINING_GPU = 0 if study.pretraining.device == "cpu" else GPU

    ruleorder: pretrain > train

    rule pretrain:
        # First of all: it takes longest, and other runs wait for it.
        priority: 2
        output:
            f"{RUNS}/{study.pretraining.run_id}/executed",
        params:
            yaml=as_yaml(dict(vars(study.pretraining))),
            gpu=take_gpus(PRETRAINING_GPU),
        threads: 1
        resources:
            gpu=PRETRAINING_GPU,
        message:
            f"pre-training {study.pretraining.run_id}"
        shell:
            "{params.gpu}"
            # Its figures stay with the run: those of the committed notebook are of its own run.
            f"env NLA_FIGURES={RUNS_WORD}/{study.pretraining.run_id}/figures {PAPERMILL}"
            f" {EPOCHS_TO_TERMINAL} notebooks/{PRETRAINING_NOTEBOOK}.ipynb"
            f" {RUNS_WORD}/{study.pretraining.run_id}/notebook.ipynb -y {{params.yaml}}"
            " && touch {output:q}"


rule train:
    wildcard_constraints:
        run_id=r"(?!\w+-masked-)[\w.-]+",  # which the rule `pretrain` makes
    input:
        pretrained,
    # Checkpoint and results lie beside it and are no outputs: snakemake would delete them when a run
    # is interrupted, and the run would begin anew.
    output:
        f"{RUNS}/{{run_id}}/executed",
    params:
        yaml=run_parameters,
        gpu=lambda wildcards: take_gpus(gpus_of(wildcards)),
    # Before notebooks: one that fails then stops no training.
    priority: 1
    threads: 1
    resources:
        gpu=gpus_of,
    message:
        "training {wildcards.run_id}"
    shell:
        "{params.gpu}"
        f"{PAPERMILL} {EPOCHS_TO_TERMINAL} notebooks/{TRAINING_NOTEBOOK}.ipynb"
        f" {RUNS_WORD}/{{wildcards.run_id}}/notebook.ipynb -y {{params.yaml}}"
        " && touch {output:q}"


rule notebook:
    input:
        "notebooks/{notebook}.ipynb",
        lambda wildcards: REPORTS.get(wildcards.notebook, NO_REPORT)[0],
    output:
        f"{FOLDER}/notebooks/{{notebook}}.ipynb",
    params:
        yaml=notebook_parameters,
    threads: 1
    message:
        "notebook {wildcards.notebook}"
    shell:
        # A notebook that fails is kept under this other name, with its error in it.
        f"NLA_FIGURES={FOLDER_WORD}/figures {PAPERMILL} {{input[0]}}"
        f" {FOLDER_WORD}/notebooks/failed_{{wildcards.notebook}}.ipynb -y {{params.yaml}}"
        f" && mv {FOLDER_WORD}/notebooks/failed_{{wildcards.notebook}}.ipynb {{output:q}}"


rule results:
    input:
        executed(),
    output:
        report(f"{FOLDER}/results.csv", category="Tables", labels={"table": "results"}),
        f"{FOLDER}/epochs.csv",
        report(f"{FOLDER}/differences.csv", category="Tables", labels={"table": "differences"}),
    message:
        "tables of all runs"
    shell:
        f"python -m nlalib collect {STUDY_WORD}"
