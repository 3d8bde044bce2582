# `make run` and `make test` need Python 3.11 or newer and nothing else; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the virtualenv was made for: this path (its scripts contain it) and these versions.
INSTALLED := $(VENV)/installed
WANTED = { echo "$(CURDIR)"; cat requirements-dev.txt; }
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

# The tests that start processes of the service, and what they print.
STARTS_PROCESSES = tests/chaos tests/consumers tests/dev tests/test_beats.py tests/test_canary.py \
	tests/test_whole_accounting.py tests/test_whole_path.py
PROCESS_LOG = $(VENV)/processes.log

.DEFAULT_GOAL := help
.PHONY: help run test test-processes test-others soak chaos bench-consumer bench-scheduler lint lock venv install

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

run: venv ## Run the service until Ctrl-C (PORT=8001 make run: on another port than 8000)
	@exec $(BIN)/python -m dev run

test: venv ## Run all tests (make test ARGS="-k average": some of them)
ifdef ARGS
	@exec $(BIN)/python -m pytest $(ARGS)
else
	@# Two at once, each with parts of its own: those that start processes mostly wait.
	@echo "Running the tests that start processes, and beside them the others ..."
	@rm -f $(PROCESS_LOG)
	@$(MAKE) --no-print-directory --jobs=2 --keep-going test-processes test-others; code=$$?; \
		cat $(PROCESS_LOG); exit $$code
endif

test-processes:
	@$(BIN)/python -m pytest $(STARTS_PROCESSES) > $(PROCESS_LOG) 2>&1

test-others:
	@$(BIN)/python -m pytest tests $(addprefix --ignore=,$(STARTS_PROCESSES))

soak: venv ## Run the tests that take minutes
	@exec $(BIN)/python -m pytest -m soak --timeout 1800 -s $(ARGS)

chaos: venv ## Kill, stop and cut off the parts at random, and count what is wrong (SECONDS=60 SEED=1)
	@exec $(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench-consumer: venv ## Measure the consumer against PostgreSQL's own limit (3 minutes; wants an idle machine)
	@exec $(BIN)/python -m bench consumer $(ARGS)

bench-scheduler: venv ## Measure beat beside the stock one, through the whole path (7 minutes; wants an idle machine)
	@exec $(BIN)/python -m bench scheduler $(ARGS)

lint: venv ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@# mypy's Django plugin reads settings; nothing is connected to.
	SECRET_KEY=none DATABASE_URL=postgres://nobody@127.0.0.1/none $(BIN)/mypy

lock: venv ## Pin what requirements.in and requirements-dev.in ask for, with hashes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) requirements.in --output-file requirements.txt
	$(LOCK) --constraints requirements.txt requirements-dev.in --output-file requirements-dev.txt

venv:
	@if ! $(WANTED) | cmp -s - $(INSTALLED) || ! $(BIN)/python -c '' 2>/dev/null; then \
		$(MAKE) --no-print-directory install; \
	fi

install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing, or older than Python 3.11. Name another one: make run PYTHON=python3.12"; \
		exit 1; \
	} >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtualenvs. Debian and Ubuntu have that apart: apt install python3-venv"; \
		exit 1; \
	} >&2
	@echo "Installing into $(VENV) (once, less than a minute) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes \
		--requirement requirements-dev.txt
	@# All cores at once; pip would take one.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@$(WANTED) > $(INSTALLED)
