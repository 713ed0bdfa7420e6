# make demo    set up, paint the demo smears, run the demo study, print where the report is
# make test    set up, check style and types, run all tests
# make bench   set up, measure ours against named peers and limits
# make coverage  simulate how often the intervals cover the truth (docs/coverage.csv)
# make lint    set up, check style and types only
# make docs    write the configuration's schema and reference anew from its models
# make real    set up, convert ../shared/data and run the three studies of real smears
# make clean   remove what the demo made (results/demo, resources/demo/*/)

PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
SHARED ?= ../shared/data

VENV := .venv
PEERS := .venv-bench
# Jobs say `python`: the environment's must be the first one found.
# Compiled modules are kept: a job imports pandas in half the time.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Steps that draw do so without a screen.
export MPLBACKEND := Agg

.PHONY: demo test bench coverage lint docs real clean
.DELETE_ON_ERROR:

$(VENV)/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed, found " + sys.version.split()[0])'
	@echo "Setting up $(VENV) (a few GB, once) …"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -r requirements.txt -r requirements-dev.txt
	@echo "$(CURDIR)/workflow" > "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/marrowflow.pth"
	@touch $@

demo: $(VENV)/installed
	snakemake --cores $(CORES)
	@echo
	@echo "The study's report:  $(CURDIR)/results/demo/report/index.html"
	@for page in results/demo/external/*/report.html; do echo "External validation: $(CURDIR)/$$page"; done

test: lint
	pytest

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

docs: $(VENV)/installed
	python -m marrowflow reference --schema resources/config.schema.json --markdown docs/configuration.md

# Peers' packages are not ours: they have an environment of their own.
$(PEERS)/installed: tests/benchmarks/requirements-peers.txt $(VENV)/installed
	@echo "Setting up $(PEERS) (peers to compare with, once) …"
	@$(VENV)/bin/uv venv --quiet --allow-existing --python $(VENV)/bin/python $(PEERS)
	@$(VENV)/bin/uv pip install --quiet --python $(PEERS)/bin/python -r tests/benchmarks/requirements-peers.txt
	@touch $@

bench: $(VENV)/installed $(PEERS)/installed
	@for script in $(filter-out %bench_peers.py,$(wildcard tests/benchmarks/bench_*.py)); do \
	  echo; echo "== $$script"; python $$script || exit 1; done
	@echo; echo "== tests/benchmarks/bench_peers.py"
	@PYTHONPATH=workflow $(PEERS)/bin/python tests/benchmarks/bench_peers.py

coverage: $(VENV)/installed
	python tests/benchmarks/simulate_coverage.py --simulations 10000 --out docs/coverage.csv
	python tests/benchmarks/simulate_coverage.py --out docs/coverage.csv --write docs/statistics.md

data/%/cohorts.tsv: tests/real_data.py
	python tests/real_data.py $* --shared $(SHARED) --out data/$*

real: $(VENV)/installed data/wbc_sites/cohorts.tsv data/malaria/cohorts.tsv data/bt5153_barcelona/cohorts.tsv
	snakemake --cores $(CORES) --configfile resources/studies/wbc_sites.yaml
	snakemake --cores $(CORES) --configfile resources/studies/bt5153_barcelona.yaml
	snakemake --cores $(CORES) --configfile resources/studies/malaria.yaml

clean:
	rm -rf results/demo resources/demo/*/
