# `make help` lists the targets: what stands behind their ## below.
# Settings, as in `make paper STUDY=demo CORES=4`: STUDY, CORES, PYTHON, CONFIG and ARGS (of `study`),
# AGAINST (of `diff`), BENCH (of `bench`).

# With the default shell, the make of macOS looks for programs on the PATH it was called with.
SHELL := bash
VENV := .venv
PYTHON ?= python3
CORES ?= 2
STUDY ?= kermany-frozen
CONFIG ?= config/kermany.yaml
ARGS ?=
AGAINST ?= HEAD
BENCH ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
SNAKEMAKE = snakemake --cores $(CORES)
require = for file in $(1); do test -f "$$file" || \
	{ echo "$$file: no such file; config/ has: $$(echo config/*.yaml)" >&2; exit 1; }; done; \
	hybridlungvit check-config $(1)

.PHONY: help demo paper diff arxiv test quick test-slurm study check bench setup system clean
.DEFAULT_GOAL := demo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s%s\n", $$1, $$2}' Makefile

demo: setup ## the whole workflow on synthetic X-rays, to paper/demo.pdf and paper/demo.html
	$(SNAKEMAKE) --configfile config/demo.yaml

paper: setup ## tables, plots and PDF of STUDY from its stored predictions
	@$(call require,config/$(STUDY).yaml)
	snakemake --cores $(CORES) --workflow-profile workflow/profiles/paper --configfile config/$(STUDY).yaml

diff: setup ## the changes of STUDY's paper since the revision AGAINST, as paper/STUDY-diff.pdf
	hybridlungvit diff --study $(STUDY) --against $(AGAINST)

arxiv: export HYBRIDLUNGVIT_CONFIG = config/$(STUDY).yaml
arxiv: paper ## STUDY's paper, packed into paper/STUDY-arxiv.tar.gz, which compiles by itself
	hybridlungvit arxiv

test: setup ## every test, in as many processes as CORES
	python -m pytest -n $(CORES) --dist loadfile

quick: setup ## the tests that take a moment: no workflow, no TeX, no training of minutes
	python -m pytest -n $(CORES) --dist loadfile -m "not slow"

# A CONFIG that was given, not the default above: the tests bring a tiny study of their own.
test-slurm: export SLURM_STUDY = $(if $(filter-out file,$(origin CONFIG)),$(CONFIG))
test-slurm: setup ## the workflow on a Slurm of one node, as root; CONFIG=config/demo.yaml: the demo
	@sh workflow/system.sh $(PYTHON) slurm
	tests/slurm/cluster.sh python -m pytest tests/slurm

study: setup ## a study of CONFIG, such as ARGS="--config data_root=PATH weights=PATH"
	@$(call require,$(CONFIG))
	$(SNAKEMAKE) --configfile $(CONFIG) $(ARGS)

check: setup ## formatters and linters
	ruff check src tests benchmarks notebooks
	ruff format --check src tests benchmarks notebooks
	snakefmt --check Snakefile workflow
	snakemake --lint --configfile config/demo.yaml

bench: setup ## the measures behind the claims, about 40 minutes; BENCH="--data FOLDER"
	python benchmarks/run.py $(BENCH)

# The system first: its checks cost nothing, the packages gigabytes.
setup: system ## the virtual environment, in .venv
	@$(MAKE) --no-print-directory $(VENV)/ready

system: ## TeX and Python's venv: install them as root, else say how
	@sh workflow/system.sh $(PYTHON)

# The stamp is written last: an interrupted installation is taken up again.
$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	python -m pip install --disable-pip-version-check -r requirements.txt
	python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) results/demo paper/build/demo paper/generated/demo paper/demo.pdf paper/demo.html \
		paper/demo-arxiv.tar.gz
