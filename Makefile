# make demo    the whole workflow on synthetic phantoms, ending with paper/demo.pdf
# make test    every test
# make check   formatters and linters
# make study CONFIG="config/kermany-cpu.yaml" ARGS="--config data_root=PATH weights=PATH"

VENV := .venv
PYTHON ?= python3
CORES ?= 2
CONFIG ?= config/kermany.yaml
ARGS ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
SNAKEMAKE = snakemake --cores $(CORES) --workflow-profile workflow/profiles/default

.PHONY: demo test study check setup tex clean
.DEFAULT_GOAL := demo

demo: setup tex
	$(SNAKEMAKE) --configfile config/demo.yaml

test: setup tex
	python -m pytest

study: setup tex
	$(SNAKEMAKE) --configfile $(CONFIG) $(ARGS)

check: setup
	ruff check src tests
	ruff format --check src tests
	snakefmt --check Snakefile workflow
	snakemake --lint --configfile config/demo.yaml

setup: $(VENV)/ready

# The stamp is written last: an interrupted installation is taken up again.
$(VENV)/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian or Ubuntu:" \
		"apt-get install python3-venv" >&2; exit 1; }
	python -m pip install --disable-pip-version-check -r requirements.txt
	python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

tex:
	@sh workflow/tex.sh

clean:
	rm -rf $(VENV) .snakemake results/demo paper/build paper/generated/demo paper/demo.pdf
