SHELL := /bin/bash
PORT ?= 8000
PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
BENCH_VENV := .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready
ROUNDS ?= 4
SEED ?= 1
FAULTS ?= 10
EXAMPLES ?= 20
HUANQUAN := PORT=$(PORT) $(VENV)/bin/huanquan
LOCK := $(VENV)/bin/pip-compile -q --generate-hashes --no-header --allow-unsafe --strip-extras \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
DRILL := $(VENV)/bin/python -m tests.faults

.PHONY: help up demo up-kafka test test-kafka bench attack drill drill-sabotage check docs lock migration clean

help:  ## Show these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

up: $(READY)  ## Set up, start everything in one process on PORT, run the sample population, stay until Ctrl-C
	@$(HUANQUAN) up

demo: $(READY)  ## Run the sample population on the system at PORT, or on one of our own, verify, and stop
	@$(HUANQUAN) demo

up-kafka: $(READY)  ## The same as up, as five processes on PORT+1 … PORT+5 with a Kafka of our own (java, maven)
	@HUANQUAN_HOME=$${HUANQUAN_HOME:-.huanquan-kafka} $(HUANQUAN) up --kafka

test: $(READY)  ## Set up and run all tests; with Kafka where java and maven are there
	@tests/run

test-kafka: $(READY)  ## Run the tests that need a real broker; fails where none can be had
	@tests/run --kafka-only

bench: $(READY) $(BENCH_READY)  ## Measure speed beside a limit and peers, judge the floors: make bench ROUNDS=4 ONLY=name,name
	@BENCH_PYTHON=$(BENCH_VENV)/bin/python $(VENV)/bin/python -m tests.bench --rounds "$(ROUNDS)" --only "$(ONLY)"

attack: $(READY)  ## Attack the contracts: every operation, importer, token and body: make attack EXAMPLES=20 SEED=n
	@SEED=$(if $(filter file,$(origin SEED)),$$RANDOM,$(SEED)); echo "SEED=$$SEED"; \
	SEED=$$SEED EXAMPLES=$(EXAMPLES) $(VENV)/bin/pytest -q -n 2 --dist load tests/attack

check: $(READY)  ## Lint, types, import rules, generated documents
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/python -m deploy.docs --check

docs: $(READY)  ## Write docs/api.md and docs/errors.md from the code
	@$(VENV)/bin/python -m deploy.docs

lock: $(READY)  ## Write the lock files from pyproject.toml and tests/bench/requirements.in; what is pinned stays
	@$(LOCK) --extra dev -o requirements.lock pyproject.toml
	@$(LOCK) -o tests/bench/requirements.lock tests/bench/requirements.in

migration: $(READY)  ## Write a service's next migration: make migration SERVICE=intake MESSAGE="what changed"
	@$(VENV)/bin/python -m tests.new_migration $(SERVICE) "$(MESSAGE)"

drill: $(READY)  ## Break the distributed form under load: make drill SEED=1 FAULTS=10 (see docs/drills.md)
	@$(DRILL) drill --seed $(SEED) --faults $(FAULTS)

drill-sabotage: $(READY)  ## Run the drill on copies of the code that are broken on purpose: each must be caught
	@$(DRILL) sabotage

clean: $(READY)  ## Stop what runs below HUANQUAN_HOME and remove its data (the environment stays)
	@if [ -n "$${HUANQUAN_HOME:-}" ]; then $(VENV)/bin/huanquan clean; \
	else for home in .huanquan .huanquan-kafka; do [ ! -e $$home ] || HUANQUAN_HOME=$$home $(VENV)/bin/huanquan clean || exit; done; fi

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed as $(PYTHON) (make PYTHON=/path/to/python3.11 …)" >&2; exit 1; }
	@# What a link leads to is somebody else's: `--clear` would empty it.
	@[ ! -L $(VENV) ] || { echo "$(VENV) is a link to $$(readlink $(VENV)), whose environment is not ours to change: remove the link" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  echo "setting up: Debian's python3-venv"; \
	  $$( [ "$$(id -u)" = 0 ] || echo sudo ) sh -c 'apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null' \
	  && $(PYTHON) -m venv --clear $(VENV); }
	@echo "setting up: libraries"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . >$(VENV)/install.log 2>&1 \
	  || { cat $(VENV)/install.log >&2; exit 1; }
	@touch $@

$(BENCH_READY): tests/bench/requirements.lock | $(READY)
	@echo "setting up: peers and chart of the benchmarks"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/bench/requirements.lock
	@touch $@
