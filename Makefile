# Leadtime. `make` alone lists the targets.
# Needs Python 3.11 or newer with pip and venv, make and git; everything else goes into environments made here.
# pip reads its usual settings (PIP_INDEX_URL, pip.conf, …), so a mirror or a wheel folder needs nothing more.

PYTHON ?= python3
VENV ?= .venv
SERVICE_VENV ?= .venv-service
PYTEST_ARGS ?=
BENCH_ARGS ?=
AUDIT_ARGS ?=
CHAOS_ARGS ?=
DATA ?= data
BENCH_MODELS := .cache/bench/models/.ready

PIP_INSTALL := -m pip --disable-pip-version-check install --quiet
UV_COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --no-header --no-annotate --python-version 3.11
UPGRADE ?=

.DEFAULT_GOAL := help
.PHONY: help serve install test audit check check-format check-lint check-types check-layers format model bench bench-peers bench-accuracy chaos lock hooks clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

serve: $(SERVICE_VENV)/.ready ## answer forecasts on http://127.0.0.1:8000 (settings: LEADTIME_* variables)
	@exec $(SERVICE_VENV)/bin/python -m service

install: $(VENV)/.ready ## make .venv, with all that training and development need

test: $(VENV)/.ready ## run every test (some of them: PYTEST_ARGS='tests/service -k window')
	$(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

check: check-format check-lint check-types check-layers ## format, lint, types and import layers (all: make -k check)

check-format: $(VENV)/.ready
	$(VENV)/bin/ruff format --check .

check-lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .

check-types: $(VENV)/.ready
	$(VENV)/bin/mypy

check-layers: $(VENV)/.ready
	$(VENV)/bin/lint-imports --no-logo --cache-dir .cache/import-linter

audit: $(VENV)/.ready ## ask a vulnerability service about all that the locks pin (needs the network; AUDIT_ARGS)
	@$(VENV)/bin/python locks/audit.py $(AUDIT_ARGS)

format: $(VENV)/.ready ## write the code in the house format
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

model: $(VENV)/.ready ## fit the bundled model anew from its seed (long)
	$(VENV)/bin/python -m training.bundle --output service/models

bench: $(SERVICE_VENV)/.ready $(BENCH_MODELS) ## measure the service beside its references on this machine (needs wrk)
	@$(SERVICE_VENV)/bin/python -m benchmarks $(BENCH_ARGS)
	@$(VENV)/bin/python -m benchmarks.report

bench-peers: $(SERVICE_VENV)/.ready $(BENCH_MODELS) ## the same beside other model servers (needs wrk; installs them; long)
	@$(SERVICE_VENV)/bin/python -m benchmarks peers $(BENCH_ARGS)
	@$(VENV)/bin/python -m benchmarks.report

bench-accuracy: $(VENV)/.ready ## forecast public series and score that (the folder that holds them: DATA=…; hours)
	@$(VENV)/bin/python -m benchmarks.accuracy all --data $(DATA) $(BENCH_ARGS)
	@$(VENV)/bin/python -m benchmarks.accuracy.report

chaos: $(VENV)/.ready ## break things on purpose under load, and see whether the service keeps its promises (CHAOS_ARGS)
	@$(VENV)/bin/python -m chaos $(CHAOS_ARGS); kept=$$?; $(VENV)/bin/python -m chaos.report && exit $$kept

lock: $(VENV)/.ready ## write locks/ anew from pyproject.toml (newest versions: UPGRADE=--upgrade)
	$(UV_COMPILE) $(UPGRADE) pyproject.toml -o locks/service.txt
	$(UV_COMPILE) $(UPGRADE) -c locks/service.txt --extra training pyproject.toml -o locks/training.txt
	$(UV_COMPILE) $(UPGRADE) -c locks/training.txt --extra otel pyproject.toml -o locks/otel.txt
	$(UV_COMPILE) $(UPGRADE) -c locks/otel.txt -c locks/training.txt --extra signatures pyproject.toml -o locks/signatures.txt
	$(UV_COMPILE) $(UPGRADE) -c locks/otel.txt -c locks/signatures.txt -c locks/training.txt --all-extras --group dev pyproject.toml -o locks/development.txt
	$(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(UV_COMPILE) $(UPGRADE) -c locks/development.txt - -o locks/build.txt

hooks: $(VENV)/.ready ## run the quick checks before each commit
	$(VENV)/bin/pre-commit install

clean: ## remove the environments and every cache
	rm -rf $(VENV) $(SERVICE_VENV) .cache .hypothesis .schemathesis .mypy_cache .pytest_cache .ruff_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is served in benchmarks: made once, by the training package.
$(BENCH_MODELS): benchmarks/models.py $(wildcard training/*.py) $(VENV)/.ready
	@$(VENV)/bin/python -m benchmarks.models
	@touch $@

# The environments. A stamp marks a finished one, so that the next run costs nothing.

# for `make serve`: what the service needs and no more, made from nothing so that nothing else is in it
$(SERVICE_VENV)/.ready: locks/service.txt locks/build.txt pyproject.toml
	@$(MAKE) --no-print-directory python-is-new-enough
	@echo "making $(SERVICE_VENV) from locks/service.txt"
	@$(PYTHON) -m venv --clear $(SERVICE_VENV)
	@$(SERVICE_VENV)/bin/python $(PIP_INSTALL) --require-hashes -r locks/build.txt -r locks/service.txt
	@$(SERVICE_VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# for everything else: the training libraries and the tools besides
$(VENV)/.ready: locks/development.txt locks/build.txt pyproject.toml
	@$(MAKE) --no-print-directory python-is-new-enough
	@echo "making $(VENV) from locks/development.txt (TensorFlow is in it: some minutes and 2 GB)"
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python $(PIP_INSTALL) --require-hashes -r locks/build.txt -r locks/development.txt
	@$(VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: python-is-new-enough
python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit("Leadtime needs Python 3.11 or newer: name one with `make PYTHON=python3.12 …`" if sys.version_info < (3, 11) else 0)'
