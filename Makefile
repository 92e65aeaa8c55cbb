# The only list of commands; .ci/run and README.md call these. `make` alone prints them.
#
#   PYTHON     the interpreter that .venv is made with (3.11 or newer)
#   TORCH      what to install as torch, when another build than the default index's is wanted
#   PIP_FLAGS  more words for pip, such as an index of your own
#   MODEL      what `make up` serves, instead of the models of conf/server.toml; PORT: where
#   SEED       of the load and the faults of `make chaos`, soak and mutants
#   ACCEPT     advisories that `make check` lets pass, by their ids
#   ARGS       more words for pytest, for bench, for vlmq up and for vlmq demo

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH ?= torch==2.13.0
PIP_FLAGS ?=
MODEL ?=
PORT ?= 8700
ARGS ?=
SEED ?= 1
ACCEPT ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input $(PIP_FLAGS)
STAMP := $(VENV)/installed
TINY := var/models/vlmq-tiny/config.json
# Keeps the numeric libraries of many small processes from fighting over the cores.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup model demo up down status test unit contract integration acceptance clients check format gpu chaos soak overload mutants bench docs clean

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt tests/clients/openai-1.txt
	@if [ -z "$(PYTHON)" ]; then \
	  echo "vlmq needs Python 3.11 or newer; none of python3, python3.14 … python3.11 on the PATH is." \
	    "Name one: make setup PYTHON=/path/to/python3" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("vlmq needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setup: $$($(PYTHON) --version) into $(VENV); the first time takes minutes, most of it torch"
	@[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) -c constraints.txt setuptools
	$(PIP) -c constraints.txt "$(TORCH)"
	$(PIP) -c constraints.txt --no-build-isolation -e ".[api,worker,cli,flower,embedded,tensorrt,dev]"
	$(PIP) --quiet --upgrade --no-deps --target $(VENV)/clients/openai-1 -r tests/clients/openai-1.txt
	@touch $@

model: $(TINY) ## make the tiny random checkpoint var/models/vlmq-tiny

$(TINY): $(STAMP) $(wildcard tools/tiny_model.py tools/tiny_model/*.py)
	$(BIN)/python -m tools.tiny_model --out $(@D)
	@touch $@

demo: $(STAMP) ## start everything, send pictures, stream the answers, stop
	$(BIN)/vlmq demo $(ARGS)

up: $(STAMP) ## start everything in the background and print the URLs
	$(BIN)/vlmq up --detach --port $(PORT) $(if $(MODEL),--model $(MODEL)) $(ARGS)

down: $(STAMP) ## stop what `make up` started
	$(BIN)/vlmq down

status: $(STAMP) ## show what `make up` started
	$(BIN)/vlmq status

test: $(TINY) ## run all tests (ARGS="-k word -x" goes to pytest)
	$(BIN)/python -m pytest tests $(ARGS)

unit contract integration acceptance clients: $(TINY)
	$(BIN)/python -m pytest tests/$@ $(ARGS)

unit: ## tests without process, socket or clock
contract: ## one suite for every implementation of a port
integration: ## one part with its real neighbours
acceptance: ## the whole system as real processes
clients: ## what clients do with a live server: both openai versions, the pages' snippets

check: $(STAMP) ## format, lint, types, import contracts, known vulnerabilities of packages; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.audit constraints.txt $(foreach id,$(ACCEPT),--accept $(id))

format: $(STAMP) ## rewrite the code in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu: $(STAMP) ## build the demo model's vision engine on this GPU, compare it with torch, measure both
	$(BIN)/python -m tools.build_vision_engine.on_gpu

chaos: $(STAMP) ## kill, cut and starve the parts of a running system under load, and audit it (SEED=n)
	$(BIN)/python -m tests.chaos --seed $(SEED) $(ARGS)

soak overload mutants: $(STAMP)
	$(BIN)/python -m tests.chaos.$@ --seed $(SEED) $(ARGS)

soak: ## 20,000 short jobs with a fault now and then: nothing grows, nothing is lost
overload: ## ten times as many jobs as one worker can do, for five minutes, then the drain
mutants: ## take one promise at a time out of a copy of the code: `make chaos` must notice

bench: $(TINY) ## measure engine and path against transformers, side by side
	$(BIN)/python -m bench $(ARGS)

docs: $(STAMP) ## write docs/settings.md again from the settings classes
	$(BIN)/python -m cli.settings_doc

clean: ## remove .venv, caches and var (data of a stopped `make up` too)
	@if [ -x $(BIN)/vlmq ] && [ -e var/up.json ]; then $(BIN)/vlmq down; fi
	rm -rf $(VENV) var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
