# Nothing before these but Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Whatever the environment says: every process imports byte code, which halves the time that it takes to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-everywhere test-faults fuzz setup check style docs screenshots lock clean help

help:
	@echo "make demo   set up, and train one model over twelve banks on this machine"
	@echo "make test   set up, and run every check and the tests"
	@echo "make test-all   that, and the tests that take minutes together"
	@echo "make test-everywhere   the tests as other processors run them, and on a busy machine"
	@echo "make test-faults   members killed at every change to a disk, rounds over bad links, processes disturbed: a table of it"
	@echo "make fuzz   an hour of other inputs than any before, for everything that reads foreign bytes"
	@echo "make check  only the fast checks: style, types, import direction, hygiene"
	@echo "make docs   the documentation as a site, in build/docs; broken links end it"
	@echo "make screenshots   the documents' pictures of the Prefect UI, taken by its tests in a browser"
	@echo "make lock   resolve the dependencies anew"

demo: setup
	@$(BIN)/fedround demo $(ARGS)

# What tests write is thrown away. Where memory has room for it, nobody waits for a disk.
ROOMY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 {print "/dev/shm"}')
THROWN_AWAY := TMPDIR=$$(mktemp -d $(or $(ROOMY),$${TMPDIR:-/tmp})/fedround-tests-XXXXXX) && export TMPDIR && trap 'rm -rf "$$TMPDIR"' EXIT

# Types take a minute when nothing is cached: beside the tests.
test: setup style
	@$(THROWN_AWAY); $(BIN)/mypy & types=$$!; $(BIN)/pytest -q -n 3 -m "not slow"; tests=$$?; wait $$types && exit $$tests

# With the tests that take minutes together: the wheel's demonstration, promotions, everything about --one-run-per-site.
test-all: setup style
	@$(THROWN_AWAY); $(BIN)/mypy && $(BIN)/pytest -q -n 3

test-everywhere: setup
	@$(BIN)/python -m tests.everywhere $(ARGS)

test-faults: setup
	@$(THROWN_AWAY); $(BIN)/python -m tests.faults $(ARGS)

fuzz: setup
	@$(BIN)/python -m tests.fuzz $(SECONDS_OF_IT)

check: setup style
	@$(BIN)/mypy

style: setup
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.hygiene

# Strict: a link that leads nowhere ends it. Nothing is fetched.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q
	@echo "open build/docs/index.html; with the search: $(BIN)/python -m http.server -d build/docs --bind 127.0.0.1"

screenshots: setup
	@$(BIN)/python -m docs_site.screenshots

setup: $(VENV)/ready

# torch first and alone: where a CPU build is configured, pip finds it, and nothing else brings the CUDA packages.
$(VENV)/ready: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (seconds with a warm package cache) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fedround needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$$(grep '^uv==' requirements.lock)" "$$(grep '^torch==' requirements.lock)"
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

lock:
	@$(BIN)/uv pip compile pyproject.toml --group dev --group benchmarks --group docs --python-version 3.11 --universal --no-annotate --no-header -q \
		| grep -vE '^(nvidia-|cuda-|triton)' > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean:
	@-test -x $(BIN)/fedround && $(BIN)/fedround down --home .fedround/demo
	@rm -rf $(VENV) .fedround
