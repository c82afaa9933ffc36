# make demo | test | interpreted | kernels | dials | check | check-slow | bench | clean.  Everything happens in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest --numprocesses $(or $(JOBS),2) --dist loadfile
NUMERICAL := tests/fit/test_nist.py tests/objective/test_twofold.py tests/objective/test_saturation.py \
	$(addprefix tests/test_reference.py::test_,objective fixed_effects variance_components conditional_modes)
SOURCES := bigmm tests examples .ci/dials .ci/kernels $(wildcard benchmarks)

export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test interpreted kernels check check-slow format lint types contracts dials bench bench-large constraints clean

help:
	@echo 'make demo        fit a mixed model to 73,421 real ratings in a Parquet lake, and show what comes out'
	@echo 'make test        the tests (two processes; JOBS=4 for more)'
	@echo 'make interpreted the tests of kernels without compilation: the interpreter checks every index'
	@echo 'make kernels     the numerical tests under every OpenBLAS kernel that this processor runs'
	@echo 'make dials       how the package is written, in figures, with the limits that the tests hold'
	@echo 'make check       what CI runs: format, lint, types, import contracts, tests, README examples, kernels both ways'
	@echo 'make check-slow  the same with the slow tests'
	@echo 'make bench       the benchmarks behind the README, small enough for some minutes'
	@echo 'make bench-large the same at the size of their claims: hours, 12 GiB, 20 GB of disk'
	@echo 'make clean       remove what the others made'

# Stamps: a second run installs nothing. The demo needs the core dependencies only.
$(BIN)/python:
	@echo 'making $(VENV)'
	@sh .ci/make-venv $(VENV) $(PYTHON)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing bigmm and what it needs into $(VENV) (about a minute, once)'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo 'installing what the tests need'
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.core
	@$(PIP) --editable '.[bench]'
	@touch $@

demo: $(VENV)/.core
	@env -u NUMBA_CACHE_DIR $(BIN)/bigmm demo --out build/demo --overwrite

test: $(VENV)/.dev
	$(PYTEST) -m 'not slow' --record-durations build/durations.txt

interpreted: $(VENV)/.dev
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q -p no:xdist -m 'interpreted and not slow'

kernels: $(VENV)/.dev
	@$(BIN)/python .ci/kernels $(BIN)/python $(NUMERICAL)

check: format lint types contracts test interpreted kernels

check-slow: format lint types contracts kernels
	$(PYTEST) --record-durations build/durations-slow.txt

format: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

dials: $(VENV)/.dev
	@$(BIN)/python .ci/dials --types

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

bench-large: $(VENV)/.bench
	$(BIN)/python -m benchmarks --full

constraints: $(VENV)/.dev
	{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable --exclude bigmm --exclude pip --exclude setuptools; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find bigmm tests examples $(wildcard benchmarks) -name __pycache__ -prune -exec rm -rf {} +
