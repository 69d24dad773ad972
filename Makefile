# Everything from a fresh clone. Asks for Python 3.11+ and make, nothing else.
# Servers are exec'ed, so that no shell stands between Ctrl-C and them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile pyproject.toml --quiet \
        --universal --python-version 3.11 --generate-hashes --no-emit-index-url
# Auth is off for whoever tries Sendable out, unless the environment or the settings file speaks of it.
OPEN = grep -qs '^[^\#[:alnum:]_]*auth[^[:alnum:]_=]*=' "$${SENDABLE_CONFIG:-/dev/null}" || export SENDABLE_AUTH="$${SENDABLE_AUTH:-off}"
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run demo test real lint bench chaos lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.run ## set up and serve on http://127.0.0.1:8000 (Ctrl-C stops all of it)
	@$(OPEN); exec $(BIN)/sendable serve

demo: $(VENV)/.run ## a running service, fed a realistic day of traffic
	@$(OPEN); exec $(BIN)/sendable demo $(ARGS)

test: $(VENV)/.dev ## the whole test suite, in three processes, each against a real PostgreSQL of its own
	@exec $(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(ARGS)

real: $(VENV)/.dev $(VENV)/jasmin/.made $(VENV)/signers/.made $(VENV)/older_signers/.made ## against gateways that we did not write; needs packages, see .ci/run
	@exec $(BIN)/python -m pytest tests/real $(ARGS)

lint: $(VENV)/.dev ## format, lint, types, import contracts, the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

bench: $(VENV)/.dev ## the benchmark, with its own peers and ceilings
	@exec $(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/.dev ## the long run of kills: make chaos ARGS="--kills 200"
	@exec $(BIN)/python -m tests.chaos $(ARGS)

lock: $(VENV)/.dev ## renew the hash locks, for every platform, to the newest releases
	$(LOCK) --group build --upgrade --output-file requirements.txt
	$(LOCK) --group build --group dev --upgrade --constraint requirements.txt --output-file requirements-dev.txt
	cd tests/real/environments && for one in jasmin signers older_signers; do \
	  $(subst pyproject.toml,$$one.in,$(subst $(BIN),$(CURDIR)/$(BIN),$(LOCK))) --upgrade --output-file $$one.txt; done

clean: ## forget what was set up; the data in .sendable/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# --- the virtual environment: made once, brought up to date when a lock changes ---

# Its Python may be gone since, or another one (/usr/bin/python3 of a newer system): then it is made anew.
$(shell [ ! -e $(VENV) ] || $(BIN)/python -c 'import os, sysconfig; os.stat(sysconfig.get_path("purelib"))' 2>/dev/null \
  || rm -rf $(VENV))

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Sendable needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	            "Name another one: make PYTHON=/path/to/python3.13 …" >&2; exit 1; }
	@echo "Setting up $(VENV) (once, about a minute) …" >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.txt pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

# What others wrote, each in an environment of its own: their pins clash with ours.
$(VENV)/%/.made: tests/real/environments/%.txt | $(BIN)/python
	@rm -rf $(@D) && $(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@
