# Every target sets up what it needs, from nothing but Python (3.11 to 3.13), make and a package index.
# Set-up lives in tools/environment.py; it does nothing where all is there.
#
#   make train ARGS='--arch "[4*8]" --meta-loops 3'   other options for the run
#   make test ARGS='-k lock -x'                       other options for pytest
#   make test PYTHON=python3.12                       another Python for a new .venv
#   make install EXTRAS="ray aws"                     optional dependencies (EXTRAS=all: all of them)
#   make train CPU=1                                  PyTorch's CPU build, a fifth of the size (CPU=0: CUDA)

# What the tests need beyond the plain installation.
TEST_GROUPS = dev
TEST_EXTRAS = search rehearse tensorboard mlflow wandb pdf fast onnx

# The Python to make environments with: the one that is active, if it will do, else the newest that will;
# looked for once, and only by targets that need it.
PYTHON_WILL_DO = -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
PYTHON ?= $(eval PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name $(PYTHON_WILL_DO) 2>/dev/null && echo $$name && break; done))$(PYTHON)

POETRY = .poetry/bin/poetry
RUN = .venv/bin/python
ARGS =
EXTRAS =
# The build of PyTorch: 1 for CPU alone, 0 for CUDA; by default CPU where there is no NVIDIA device. Kept afterwards.
CPU =

# More than eight test workers gain little and cost about half a GB each.
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal

# An environment that happens to be active must not be mistaken for the project's.
unexport VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV PYTHONHOME PYTHONPATH
export POETRY_VIRTUALENVS_CREATE = true
export POETRY_VIRTUALENVS_IN_PROJECT = true
export PIP_USER = 0

define set_up
@"$(PYTHON)" $(PYTHON_WILL_DO) 2>/dev/null || { echo "make: no Python 3.11, 3.12 or 3.13 with its venv module \
	$(if $(PYTHON),in PYTHON=$(PYTHON),on PATH): install one (on Debian with python3-venv)," \
	"or name it with PYTHON=/path/to/python3" >&2; exit 1; }
@"$(PYTHON)" tools/environment.py $(if $(filter file,$(origin PYTHON)),,--same-python) $(if $(CPU),--cpu=$(CPU))
endef

.PHONY: help install train test test-long check crash fuzz bench bench-reports bench-ray bench-gradients bench-memory gpu docs pages images policies format lint types wheel fix set-up set-up-tests
.DEFAULT_GOAL = help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: ## install psa into .venv, with optional dependencies (EXTRAS="ray aws", EXTRAS=all)
	$(set_up) --extra="$(EXTRAS)"
	@echo 'psa is installed; activate its environment once in each terminal: source .venv/bin/activate'

train: ARGS = --arch "[2*64]" --ablation-mode hidden --meta-loops 10 --model-dir models/first-run
train: set-up ## train one small network, in less than a minute
	@$(POETRY) run train $(ARGS)

test: set-up-tests ## run the tests of every module, in about eight minutes on two cores
	@$(PYTEST) --durations=10 $(ARGS)

test-long: set-up-tests ## run the tests that take longer: documents end to end, clusters, emulators, wide fuzzing
	@$(PYTEST) --durations=10 -m "slow and not crash" $(ARGS)

check: format lint types $(if $(TESTED),,test test-long) wheel ## all that a change must pass (TESTED=1: all but the tests)

crash: set-up-tests ## kill sweeps hundreds of times and compare what is left with an undisturbed one
	@$(RUN) tests/crash/harness.py $(or $(ARGS),--kills 200)
	@$(RUN) tests/crash/harness.py $(or $(ARGS),--kills 200) --open-files 64
	@$(PYTEST) -m crash

fuzz: set-up-tests ## hand psa odd words and damaged files, a hundred times as many as the tests do
	@PSA_FUZZ=100 OMP_NUM_THREADS=1 $(RUN) -m pytest tests/cli/test_fuzz.py $(ARGS)

bench: set-up-tests ## psa beside a hand-written loop, torch.func.vmap and JAX, over the whole grid (ARGS='--every 10')
	@"$(PYTHON)" tools/optional_group.py bench
	@$(RUN) benchmarks/bench.py $(ARGS)

bench-reports: set-up-tests ## the records of the whole grid to a DataFrame, and to every report
	@$(RUN) benchmarks/reports.py $(ARGS)

bench-ray: set-up-tests ## a sweep through Ray beside the same sweep without it
	@$(RUN) benchmarks/cluster.py $(ARGS)

bench-gradients: set-up-tests ## what keeping every sample's gradient of an epoch costs, and clustering them
	@$(RUN) benchmarks/gradients.py $(ARGS)

bench-memory: set-up-tests ## inserting 100,000 entries into a memory, early and late, and searching it
	@$(RUN) benchmarks/memory.py $(ARGS)

gpu: set-up ## check psa on this machine's GPU, and estimate the published study there (ARGS='--seconds 120')
	@$(RUN) tools/gpu_check.py $(ARGS)

docs: set-up-tests ## write the generated parts of docs/ anew (BENCH=results/bench: with a new benchmark)
	@$(RUN) tools/tools_page.py
	@$(RUN) tools/json_page.py
	@$(RUN) tools/published_page.py
	@$(RUN) tools/benchmark_page.py $(BENCH)

pages: set-up-tests ## write the reports under results/reports anew, from the published bundles (ARGS=digits)
	@$(RUN) tools/committed_pages.py $(ARGS)

images: set-up-tests ## write the table of container images anew, from AWS's SDK (the extra sagemaker)
	@$(RUN) tools/images.py

policies: set-up-tests ## write the IAM policies anew, from the calls that psa makes in a rehearsal
	@$(RUN) tools/policies.py

format: set-up-tests ## is the code formatted?
	@$(RUN) -m ruff format --check

lint: set-up-tests ## ruff's rules, who may import whom, and a lock that fits pyproject.toml
	@$(RUN) -m ruff check
	@$(RUN:python=lint-imports) --no-cache
	@$(POETRY) check --lock --strict

types: set-up-tests ## mypy, strict
	@$(RUN) -m mypy

wheel: set-up ## build the wheel, install it elsewhere, start it, put it into dist/
	@rm -rf .build/dist
	@$(POETRY) build --quiet --format=wheel --output=.build/dist
	@$(RUN) tools/check_wheel.py .build/dist
	@mkdir -p dist && cp .build/dist/*.whl dist/

fix: set-up-tests ## format the code and mend what ruff can mend
	@$(RUN) -m ruff check --fix-only
	@$(RUN) -m ruff format

set-up:
	$(set_up)

set-up-tests:
	$(set_up) $(TEST_GROUPS:%=--group=%) $(TEST_EXTRAS:%=--extra=%)
