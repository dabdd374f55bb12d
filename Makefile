# Everything a reader of the study runs. `make` alone lists the targets.
# Needs Python 3.11 or newer (PYTHON=python3.12 picks one for a new environment), pip, bash, and
# GNU make 3.81 or newer.

PYTHON ?= python3
# The environment; made when missing. An existing one, conda's too, is reused: VENV=$CONDA_PREFIX
VENV ?= .venv
CONFIG ?= configs/embedded.yaml
# getconf, as nproc obeys OMP_NUM_THREADS and macOS lacks it.
CORES ?= $(shell getconf _NPROCESSORS_ONLN)

# Tests run side by side, those of one file or notebook in one process, in their order. Each process
# holds PyTorch: more than four gain little.
TESTERS ?= $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))
SIDE_BY_SIDE = -n $(TESTERS) --dist loadfile

# What `make study` runs. To look before: snakemake --dry-run --config study=... A run's id says
# what it is, so an edited Snakefile makes no finished run stale. Runs are locked by the training
# itself; snakemake's lock would outlive a killed study.
STUDY ?= snakemake --cores $(CORES) --quiet host reason --rerun-incomplete --nolock \
	--rerun-triggers mtime input --config "study=$(CONFIG)" $(if $(KEPT),kept=1)

SHELL := /bin/bash
NOTEBOOKS = $(sort $(wildcard notebooks/[0-9]*.ipynb))
# Packages that only another Python or system asks for, so that the pins hold there as well:
# papermill wants aiohttp on Python 3.12, ipykernel wants appnope on macOS.
LOCK_ALSO = aiohttp appnope

BIN = $(VENV)/bin
# The mark of a whole environment, as make reads names with spaces: its targets hang on it.
SPACE := $(subst ,, )
INSTALLED = $(subst $(SPACE),\ ,$(VENV))/.installed
PIP_INSTALL = "$(BIN)/python" -m pip install -qq --disable-pip-version-check -c constraints.txt
# First in front of every command: tools of this environment, its kernel whatever kernels the
# user has installed, and IPython settings of our own, so that nobody's start-up files take part.
IN_VENV = unset MPLBACKEND; venv="$$(cd "$(VENV)" && pwd)"; export PATH="$$venv/bin:$$PATH" \
	JUPYTER_PATH="$$venv/share/jupyter" IPYTHONDIR="$$venv/ipython";

.PHONY: help study report publish recompute readme test lab book notebooks benchmark lock clean stale
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1|/' \
		| awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo
	@echo "  CONFIG=$(CONFIG)  CORES=$(CORES)  PYTHON=$(PYTHON)  VENV=$(VENV)"

# KEPT=1 takes the runs whose predictions are kept in results/ as they are, and trains the others.
study: $(INSTALLED)  ## run what a study still lacks: CONFIG=configs/NAME.yaml, CORES=N
	@$(IN_VENV) export OMP_NUM_THREADS=1; \
	python -m nlalib check "$(CONFIG)" && $(STUDY) && python -m nlalib show "$(CONFIG)"

report: $(INSTALLED)  ## a finished study as one HTML file that needs no network: CONFIG=...
	@$(IN_VENV) page="$$(python -m nlalib front "$(CONFIG)")" && \
	snakemake report_page --quiet --nolock --config "study=$(CONFIG)" $(if $(KEPT),kept=1) \
		--report "$$page" && echo "$$page"

publish: $(INSTALLED)  ## copy a finished study's table and figures to results/ and figures/
	@$(IN_VENV) python -m nlalib publish "$(CONFIG)"

recompute: $(INSTALLED)  ## the published tables again, from the kept predictions: no data set, no GPU
	@$(IN_VENV) python -m nlalib recompute

readme: $(INSTALLED)  ## write the tables of README.md, from those of results/
	@$(IN_VENV) python -m nlalib readme

# The notebooks' part runs on the CPU, as the committed outputs do, and writes figures and decoded
# images to a temporary folder; tests/check_figures.py then compares those with the committed ones.
# pyproject.toml asks for quiet; --verbosity=0 brings pytest's full closing line back.
test: $(INSTALLED)  ## style, types, unit tests, then every notebook against its stored outputs
	@$(IN_VENV) stage() { name="$$1"; shift; echo; echo "== $$name"; "$$@" || { \
			echo; echo "make test failed at $$name"; exit 1; }; }; \
	folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; export OMP_NUM_THREADS=1; \
	stage "1/7 style: errors" ruff check . && \
	stage "2/7 style: layout" ruff format --check . && \
	stage "3/7 imports go one way" lint-imports --no-logo && \
	stage "4/7 types" mypy && \
	stage "5/7 unit tests" python -m pytest --verbosity=0 $(SIDE_BY_SIDE) tests && \
	export NLA_FIGURES="$$folder/figures" NLA_CACHE="$$folder/cache" \
		NLA_RUNS="$$folder/runs" CUDA_VISIBLE_DEVICES= && \
	stage "6/7 notebooks" python -m pytest --verbosity=0 $(SIDE_BY_SIDE) --nbval \
		--nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
		--nbval-cell-timeout 300 notebooks && \
	stage "7/7 figures" python -m pytest --verbosity=0 tests/check_figures.py

# What is set for it, and why, stands in scripts/lab.
lab: $(INSTALLED)-lab  ## open the notebooks in JupyterLab; LAB_ARGS=... are its own
	@$(IN_VENV) export JUPYTER_CONFIG_PATH="$$PWD/scripts/lab"; \
	[ "$$(id -u)" != 0 ] || echo "As root, JupyterLab wants: make lab LAB_ARGS=--allow-root"; \
	[ -z "$$SSH_CONNECTION" ] || echo "Over SSH: make lab LAB_ARGS=--no-browser here," \
		"ssh -L 8888:localhost:8888 <this machine> there, and the link below in your browser"; \
	jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb $(LAB_ARGS)

# From the stored outputs: nothing is executed. A warning or a broken link is an error.
book: $(INSTALLED)-book  ## the notebooks and pages as a web site, in book/_build
	@$(IN_VENV) sphinx-build --quiet --fail-on-warning --keep-going --builder html --conf-dir book \
		--doctree-dir book/_build/doctrees . book/_build/html && \
	python scripts/check_book.py book/_build/html && echo "Open book/_build/html/index.html"

# In a folder of its own for runs, so that 04 trains and does not find its run done.
notebooks: $(INSTALLED)  ## run all notebooks again and store their outputs and figures
	@$(IN_VENV) folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
	OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= NLA_RUNS="$$folder" \
		python scripts/execute_notebooks.py $(NOTEBOOKS)

benchmark: $(INSTALLED)  ## measure speed, as ratios; an hour or two (BENCHMARK=--quick: minutes)
	@$(IN_VENV) OMP_NUM_THREADS=1 python -m benchmarks $(BENCHMARK)

lock:  ## remake constraints.txt from pyproject.toml with the newest versions that fit
	@echo "Resolving versions in a fresh environment; this takes some minutes ..."
	@set -eo pipefail; folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and \
		"make lock needs the oldest Python supported, which any newer one can follow: " \
		"make lock PYTHON=python3.11")'; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check --dry-run \
		--ignore-installed --report "$$folder/report.json" ".[test,export,lab,book]" $(LOCK_ALSO); \
	"$$folder/venv/bin/python" -c 'import json, sys; \
		found = [item["metadata"] for item in json.load(open(sys.argv[1]))["install"]]; \
		from pip._vendor.packaging.specifiers import SpecifierSet; \
		newer = [one["name"] for one in found \
			if "3.11.0" not in SpecifierSet(one.get("requires_python", ""))]; \
		newer and sys.exit("these need a newer 3.11; pin older ones in pyproject.toml: %s" % newer); \
		pins = {"%(name)s==%(version)s" % one for one in found if one["name"] != "nlalib"}; \
		print("\n".join(sorted(pins, key=str.lower)))' "$$folder/report.json" > "$$folder/pins"; \
	cp "$$folder/pins" constraints.txt; git diff --stat -- constraints.txt

clean:  ## remove caches of the tools; never .venv, runs/ or data/
	rm -rf .pytest_cache .ruff_cache .hypothesis .mypy_cache .import_linter_cache
	find $(wildcard nlalib tests scripts notebooks benchmarks) -depth \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +

# An environment made in another folder (a moved clone), whose Python is gone, or with an install
# broken off, is seen to again.
ifneq ($(shell [ ! -e "$(VENV)/.installing" ] && [ "$$(cat "$(VENV)/.installed" 2>/dev/null)" = "$$PWD" ] \
	&& "$(BIN)/python" -c "" 2>/dev/null && echo sound),sound)
$(INSTALLED): stale
endif

# `.installing` stands in the environment while pip works: found at the start, it tells of an
# install that was broken off, after which pip may take half a package for a whole one.
$(INSTALLED): pyproject.toml constraints.txt
	@set -e; python="$(BIN)/python"; \
	if [ -d "$(VENV)" ] && { [ -e "$(VENV)/.installing" ] || ! "$$python" -c "" 2>/dev/null; }; then \
		[ -e "$(VENV)/pyvenv.cfg" ] || { \
			echo "$(VENV) is no sound Python environment, nor one that may be removed here." >&2; \
			echo "Remove it (or make it again, if it is conda's), or give another VENV=..." >&2; \
			exit 1; }; \
		echo "$(VENV) is incomplete or its Python is gone: starting it over."; rm -rf "$(VENV)"; \
	fi; \
	[ -d "$(VENV)" ] || python="$(PYTHON)"; \
	found="$$("$$python" -c 'import platform; print(platform.python_version())' 2>/dev/null)" || { \
		echo "No Python found as $$python. Install Python 3.11 or newer and name it:" >&2; \
		echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$python is Python $$found, but this project needs 3.11 or newer. Next step:" >&2; \
		if [ -d "$(VENV)" ]; then echo "  remove the folder $(VENV), and" >&2; fi; \
		echo "  make $(MAKECMDGOALS) PYTHON=python3.12   (or any other that is new enough)" >&2; \
		exit 1; }; \
	if [ -d "$(VENV)" ]; then \
		echo "Bringing $(VENV) (Python $$found) up to date with pip ..."; \
		touch "$(VENV)/.installing"; \
	else \
		echo "Making $(VENV) (Python $$found) with pip: some minutes and about 6 GB the first time ..."; \
		mkdir -p "$(VENV)"; touch "$(VENV)/.installing"; "$$python" -m venv "$(VENV)"; \
	fi; \
	$(PIP_INSTALL) -e ".[test,export]"; \
	mkdir -p "$(VENV)/ipython/profile_default"; \
	echo 'c.IPKernelApp.log_level = 40  # silences the notice that kernels talk over plain TCP' \
		> "$(VENV)/ipython/profile_default/ipython_kernel_config.py"; \
	rm "$(VENV)/.installing"; pwd > "$@"

# What a single target wants beside the rest: .installed-lab, .installed-book.
$(INSTALLED)-%: $(INSTALLED)
	@set -e; echo "Adding what make $* needs to $(VENV) ..."; touch "$(VENV)/.installing"; \
	$(PIP_INSTALL) -e ".[test,export,$*]"; rm "$(VENV)/.installing"; pwd > "$@"
