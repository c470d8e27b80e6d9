# make demo    the whole workflow on synthetic phantoms, ending with paper/demo.pdf
# make paper   tables, plots and PDF of a study from its stored predictions; STUDY=kermany-cpu
# make arxiv   the same, packed into paper/STUDY-arxiv.tar.gz, which compiles by itself
# make test    every test, in as many processes as CORES
# make quick   the tests that take a moment: no workflow, no TeX, no training of minutes
# make test-slurm  the workflow on a Slurm of one node; as root. CONFIG=config/demo.yaml: the demo
# make check   formatters and linters
# make bench   the measures behind the claims, about 40 minutes; BENCH="--data FOLDER"
# make study CONFIG="config/kermany-cpu.yaml" ARGS="--config data_root=PATH weights=PATH"

VENV := .venv
PYTHON ?= python3
CORES ?= 2
STUDY ?= kermany-cpu
CONFIG ?= config/kermany.yaml
ARGS ?=
BENCH ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
SNAKEMAKE = snakemake --cores $(CORES)

.PHONY: demo paper arxiv test quick test-slurm study check bench setup system clean
.DEFAULT_GOAL := demo

demo: setup
	$(SNAKEMAKE) --configfile config/demo.yaml

paper: setup
	snakemake --cores $(CORES) --workflow-profile workflow/profiles/paper --configfile config/$(STUDY).yaml

arxiv: export HYBRIDLUNGVIT_CONFIG = config/$(STUDY).yaml
arxiv: paper
	hybridlungvit arxiv

test: setup
	python -m pytest -n $(CORES) --dist loadfile

quick: setup
	python -m pytest -n $(CORES) --dist loadfile -m "not slow"

# A CONFIG that was given, not the default above: the tests bring a tiny study of their own.
test-slurm: export SLURM_STUDY = $(if $(filter-out file,$(origin CONFIG)),$(CONFIG))
test-slurm: setup
	@sh workflow/system.sh $(PYTHON) slurm
	tests/slurm/cluster.sh python -m pytest tests/slurm

study: setup
	$(SNAKEMAKE) --configfile $(CONFIG) $(ARGS)

check: setup
	ruff check src tests benchmarks notebooks
	ruff format --check src tests benchmarks notebooks
	snakefmt --check Snakefile workflow
	snakemake --lint --configfile config/demo.yaml

bench: setup
	python benchmarks/run.py $(BENCH)

# The system first: its checks cost nothing, the packages gigabytes.
setup: system
	@$(MAKE) --no-print-directory $(VENV)/ready

system:
	@sh workflow/system.sh $(PYTHON)

# The stamp is written last: an interrupted installation is taken up again.
$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	python -m pip install --disable-pip-version-check -r requirements.txt
	python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) .snakemake results/demo paper/build paper/generated/demo paper/demo.pdf paper/demo.html
