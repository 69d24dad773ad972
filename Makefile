# Everything from a fresh clone; asks for Python 3.11+ and make, nothing else.
# A recipe's last command is exec'ed by make itself, so that Ctrl-C reaches it once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run demo test lint bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.run ## set up and serve on http://127.0.0.1:8000 (Ctrl-C stops all of it)
	@SENDABLE_AUTH=$${SENDABLE_AUTH:-off} exec $(BIN)/sendable serve

demo: $(VENV)/.run ## a running service, fed a realistic day of traffic
	@SENDABLE_AUTH=$${SENDABLE_AUTH:-off} exec $(BIN)/sendable demo

test: $(VENV)/.dev ## the whole test suite, against a real PostgreSQL
	@exec $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## the benchmark, with its own peers and ceilings
	@exec $(BIN)/python -m bench $(ARGS)

lock: $(VENV)/.dev ## renew both hash locks to the newest releases
	$(BIN)/python -m tests.lock

clean: ## forget what was set up; the data in .sendable/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# --- the virtual environment, made anew from the locks when they change ---

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Sendable needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	            "Say which one to use: make PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
