# `make run` and `make test` need Python 3.11 to 3.14 and nothing else; `make help` lists the rest.

BIN := .venv/bin
# PYTHON=... is the only one tried where it is given.
PYTHONS = $(if $(PYTHON),"$(PYTHON)",$(BIN)/python python3.11 python3.12 python3.13 python3.14 python3)
FITS = import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

# Files are UTF-8, whatever the locale says.
export PYTHONUTF8 = 1
# Many processes run the same modules: without kept bytecode each would compile them anew.
export PYTHONDONTWRITEBYTECODE =

# Install a file of requirements where it is not installed yet, by the first Python that fits.
define install
	@$(BIN)/python -m dev.virtualenv check $(1) 2>/dev/null || { \
		for python in $(PYTHONS); do \
			if "$$python" -c '$(FITS)' 2>/dev/null; then exec "$$python" -m dev.virtualenv install $(1); fi; \
		done; \
		echo "No Python here fits: it takes Python 3.11 to 3.14 with its module venv (Debian and Ubuntu:" \
			"apt install python3-venv). $$python is: $$("$$python" --version 2>&1 | tail -n 1)." \
			"Name another one: make run PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	}
endef

.DEFAULT_GOAL := help
.PHONY: help run test test-clocks soak chaos bench-api bench-consumer bench-scheduler screenshots lint lock lock-kafka venv venv-test

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

run: venv ## Run the service until Ctrl-C (PORT=8001 make run: on another port than 8000)
	@exec $(BIN)/python -m dev run

test: venv-test ## Run all tests (make test ARGS="-k average": some of them, in one process)
	@# Five at once on two cores, each with parts of its own: they mostly wait.
	@exec $(BIN)/python -m pytest $(or $(ARGS),--numprocesses 5 --dist worksteal --durations 15)

test-clocks: venv-test ## Run the tests that start no processes on days such as 29 February (ARGS="leap-day tests/prices")
	@exec $(BIN)/python -m tests.clocks $(ARGS)

soak: venv-test ## Run the tests that take minutes, and every example of the property tests
	@ALL_EXAMPLES=1 exec $(BIN)/python -m pytest -m "soak or hypothesis" --timeout 1800 -s $(ARGS)

chaos: venv-test ## Kill, stop and cut off the parts at random, and count what is wrong (SECONDS=60 SEED=1)
	@exec $(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench-api: venv-test ## Measure REST calls beside a bare Django view (5 minutes; wants an idle machine, and wrk)
	@exec $(BIN)/python -m bench api $(ARGS)

bench-consumer: venv-test ## Measure the consumer against PostgreSQL's own limit (12 minutes; wants an idle machine)
	@exec $(BIN)/python -m bench consumer $(ARGS)

bench-scheduler: venv-test ## Measure beat beside the stock one, through the whole path (7 minutes; wants an idle machine)
	@exec $(BIN)/python -m bench scheduler $(ARGS)

screenshots: venv-test ## Write pictures of each page into docs/pictures (ARGS=folder: into another one; wants Chromium)
	@exec $(BIN)/python -m tests.browser.screenshots $(ARGS)

lint: venv-test ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	@# mypy's Django plugin reads settings; nothing is connected to.
	SECRET_KEY=none DATABASE_URL=postgres://nobody@127.0.0.1/none $(BIN)/mypy

lock-kafka: venv-test ## Pin the jars of the embedded Apache Kafka, with hashes
	@$(BIN)/python -m dev.embedded.lock_jars

lock: venv-test ## Pin what the files requirements*.in ask for, with hashes
	$(LOCK) requirements.in --output-file requirements.txt
	$(LOCK) --constraints requirements.txt requirements-run.in --output-file requirements-run.txt
	$(LOCK) --constraints requirements-run.txt requirements-dev.in --output-file requirements-dev.txt

venv: ## Install what `make run` needs, into .venv
	$(call install,requirements-run.txt)

venv-test:
	$(call install,requirements-dev.txt)
