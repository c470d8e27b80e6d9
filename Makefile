# make demo    the whole workflow on synthetic phantoms, ending with paper/demo.pdf
# make test    every test
# make check   formatters and linters
# make bench   the measures behind the claims, about 40 minutes; BENCH="--data FOLDER"
# make study CONFIG="config/kermany-cpu.yaml" ARGS="--config data_root=PATH weights=PATH"

VENV := .venv
PYTHON ?= python3
CORES ?= 2
CONFIG ?= config/kermany.yaml
ARGS ?=
BENCH ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
SNAKEMAKE = snakemake --cores $(CORES) --workflow-profile workflow/profiles/default

.PHONY: demo test study check bench setup system clean
.DEFAULT_GOAL := demo

demo: setup
	$(SNAKEMAKE) --configfile config/demo.yaml

test: setup
	python -m pytest

study: setup
	$(SNAKEMAKE) --configfile $(CONFIG) $(ARGS)

check: setup
	ruff check src tests benchmarks
	ruff format --check src tests benchmarks
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
	rm -rf $(VENV) .snakemake results/demo paper/build paper/generated/demo paper/demo.pdf
