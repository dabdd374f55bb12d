# A study's workflow: `make study CONFIG=configs/<study>.yaml`.
# Every step calls papermill on a notebook; what is done is not done again.
import shlex

import yaml

from nlalib.paths import display_path, runs_folder
from nlalib.studies import TRAINING_NOTEBOOK, read_study

STUDY_FILE = config.get("study", "configs/embedded.yaml")
study = read_study(STUDY_FILE)
RUNS = display_path(runs_folder())
FOLDER = display_path(study.folder)
PAPERMILL = "papermill --no-progress-bar --log-level WARNING"
# Of what a training run prints, its lines on epochs go to the terminal.
EPOCHS_TO_TERMINAL = "--stdout-file >(grep --line-buffered epoch >&2)"


def as_yaml(parameters: dict) -> str:
    """Parameters as one quoted word; YAML keeps their types (JSON's 1e-05 would become text)."""
    return shlex.quote(yaml.safe_dump(parameters, default_flow_style=True, width=10**6).strip())


def run_parameters(wildcards) -> str:
    return as_yaml(dict(vars(study.runs[wildcards.run_id])))


def done(method: str | None = None) -> list[str]:
    """The files that say that the study's runs, of one method or of all, are finished."""
    chosen = [run_id for run_id, run in study.runs.items() if method in (None, run.method)]
    return [f"{RUNS}/{run_id}/done" for run_id in chosen]


# What report notebooks read of the study: the input files, and the parameters that name them.
REPORTS = {
    "03_naw_weights": (done("nla"), {"runs": [path.removesuffix("/done") for path in done("nla")]}),
    "06_main_results": ([f"{FOLDER}/results.csv"], {"tables": [f"{FOLDER}/results.csv"]}),
}
NO_REPORT = ([], {})


def notebook_parameters(wildcards) -> str:
    given = study.notebooks.get(wildcards.notebook, {})
    return as_yaml({**given, **REPORTS.get(wildcards.notebook, NO_REPORT)[1]})


wildcard_constraints:
    notebook=r"\d\d_\w+",
    run_id=r"[\w.-]+",


rule all:
    input:
        expand(f"{FOLDER}/notebooks/{{name}}.ipynb", name=sorted({*study.notebooks, "06_main_results"})),


rule train:
    # The checkpoint lies beside `done` and is no output: snakemake would delete it when a run is
    # interrupted, and the run would begin anew.
    output:
        f"{RUNS}/{{run_id}}/done",
    params:
        yaml=run_parameters,
    threads: 1
    message:
        "training {wildcards.run_id}"
    shell:
        f"{PAPERMILL} {EPOCHS_TO_TERMINAL} notebooks/{TRAINING_NOTEBOOK}.ipynb"
        f" {RUNS}/{{wildcards.run_id}}/notebook.ipynb -y {{params.yaml}}"


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
        f"NLA_FIGURES={FOLDER}/figures {PAPERMILL} {{input[0]}}"
        f" {FOLDER}/notebooks/failed_{{wildcards.notebook}}.ipynb -y {{params.yaml}}"
        f" && mv {FOLDER}/notebooks/failed_{{wildcards.notebook}}.ipynb {{output}}"


rule results:
    input:
        done(),
    output:
        f"{FOLDER}/results.csv",
    message:
        "table of all runs"
    shell:
        f"python -m nlalib collect {STUDY_FILE}"
