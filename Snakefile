# A study's workflow: `make study CONFIG=configs/<study>.yaml`.
# Every step calls papermill on a notebook; what is done is not done again.
import shlex

import yaml

from nlalib.paths import display_path, runs_folder
from nlalib.studies import TRAINING_NOTEBOOK, read_study

study = read_study(config.get("study", "configs/embedded.yaml"))
RUNS = display_path(runs_folder())
FOLDER = display_path(study.folder)
REPORTS = ["06_main_results"]
# `--log-level` keeps papermill quiet; what a notebook prints goes to the terminal.
PAPERMILL = "papermill --no-progress-bar --log-level WARNING"


def as_yaml(parameters: dict) -> str:
    """Parameters as one quoted word; YAML keeps their types (JSON's 1e-05 would become text)."""
    return shlex.quote(yaml.safe_dump(parameters, default_flow_style=True, width=10**6).strip())


def run_parameters(wildcards) -> str:
    return as_yaml(dict(vars(study.runs[wildcards.run_id])))


wildcard_constraints:
    notebook=r"\d\d_\w+",
    run_id=r"[\w.-]+",


localrules: results


rule all:
    input:
        expand(f"{FOLDER}/notebooks/{{name}}.ipynb", name=[*study.notebooks, *REPORTS]),


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
        f"{PAPERMILL} --stdout-file /dev/stderr notebooks/{TRAINING_NOTEBOOK}.ipynb"
        f" {RUNS}/{{wildcards.run_id}}/notebook.ipynb -y {{params.yaml}}"


rule notebook:
    input:
        "notebooks/{notebook}.ipynb",
    output:
        f"{FOLDER}/notebooks/{{notebook}}.ipynb",
    params:
        yaml=lambda wildcards: as_yaml(study.notebooks[wildcards.notebook]),
    threads: 1
    message:
        "notebook {wildcards.notebook}"
    shell:
        f"NLA_FIGURES={FOLDER}/figures {PAPERMILL} {{input}} {{output}} -y {{params.yaml}}"


rule results:
    input:
        [f"{RUNS}/{run_id}/done" for run_id in study.runs],
    output:
        f"{FOLDER}/results.csv",
    message:
        "table of all runs"
    shell:
        f"python -m nlalib collect {config.get('study', 'configs/embedded.yaml')}"


rule report:
    input:
        notebook="notebooks/06_main_results.ipynb",
        results=f"{FOLDER}/results.csv",
    output:
        f"{FOLDER}/notebooks/06_main_results.ipynb",
    params:
        yaml=lambda wildcards, input: as_yaml({"tables": [input.results]}),
    message:
        "notebook 06_main_results"
    shell:
        f"NLA_FIGURES={FOLDER}/figures {PAPERMILL} {{input.notebook}} {{output}} -y {{params.yaml}}"


ruleorder: report > notebook
