# make demo    set up, paint the demo smears, run the demo study, print where the report is
# make explain set up, say in words what `make demo` would run, and why; ARGS="--configfile my_study.yaml" for another study
# make test    set up, check style and types, run all tests
# make bench   set up, measure ours against named peers and limits
# make bench-scale  set up, take 171,374 painted cells in 12 hospitals through the rules (12 GB in the temporary folder); docs/scale.md
# make coverage  simulate how often the intervals cover the truth (docs/coverage.csv)
# make lint    set up, check style and types only
# make docs    write the configuration's schema and reference anew from its models
# make test-environments  set up, make each rule's own environment and run its code there, all but PyTorch's
# make test-environments-torch  run two small studies whole, of images and of slides, each rule in its own environment (12 GB in the temporary folder)
# make test-slurm  set up, run the demo study through a SLURM of this machine's own, and let jobs fail there (root)
# make real    set up, convert ../shared/data and run the four studies of real smears
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

.PHONY: demo explain test test-slurm test-environments test-environments-torch bench bench-scale coverage lint docs real clean
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

explain: $(VENV)/installed
	@python -m marrowflow explain -- --cores $(CORES) $(ARGS)

# A test's own arithmetic takes one core, since others run beside it; the jobs of a workflow take the threads that their rules name.
test: lint
	OMP_NUM_THREADS=1 pytest --numprocesses $(CORES) --maxprocesses 4 --dist worksteal --durations 25

# With conda's stand-in, which lies beside the checkout or not: where it does not, both say that they skipped.
test-environments: $(VENV)/installed
	pytest tests/environments/test_own_environments.py

test-environments-torch: $(VENV)/installed
	pytest tests/environments/test_torch_environments.py

# With a SLURM that is installed and started here, by root, from beside the checkout: where that cannot be, it says so.
test-slurm: $(VENV)/installed
	pytest tests/slurm
	python tests/benchmarks/bench_slurm.py

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
	@for script in $(filter-out %bench_peers.py %bench_slurm.py %bench_scale.py,$(wildcard tests/benchmarks/bench_*.py)); do \
	  echo; echo "== $$script"; python $$script || exit 1; done
	@echo; echo "== tests/benchmarks/bench_peers.py"
	@PYTHONPATH=workflow $(PEERS)/bin/python tests/benchmarks/bench_peers.py

bench-scale: $(VENV)/installed
	python tests/benchmarks/bench_scale.py --images 10000 50000 171374 --write docs/scale.md

coverage: $(VENV)/installed
	python tests/benchmarks/simulate_coverage.py --simulations 10000 --out docs/coverage.csv
	python tests/benchmarks/simulate_coverage.py --out docs/coverage.csv --write docs/statistics.md

data/%/cohorts.tsv: tests/real_data.py
	python tests/real_data.py $* --shared $(SHARED) --out data/$*

real: $(VENV)/installed data/wbc_sites/cohorts.tsv data/malaria/cohorts.tsv data/bt5153_barcelona/cohorts.tsv data/malaria_slides/cohorts.tsv
	snakemake --cores $(CORES) --configfile resources/studies/wbc_sites.yaml
	snakemake --cores $(CORES) --configfile resources/studies/bt5153_barcelona.yaml
	snakemake --cores $(CORES) --configfile resources/studies/malaria.yaml
	snakemake --cores $(CORES) --configfile resources/studies/malaria_slides.yaml
	python tests/attention_cells.py --results results/malaria_slides --cells data/malaria_slides/nih/cells.csv --out results/malaria_slides/cells

clean:
	rm -rf results/demo resources/demo/*/
