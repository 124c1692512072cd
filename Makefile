# regfs: `make run` shows it, `make test` tests it, `make install` installs it; they install what they need on a fresh Debian.
# Nothing is installed twice: Debian packages are looked up first, the virtual environment has stamp files.
# Tests go to processes one by one, not by file, so that no process is left alone with the longest file. There are more
# processes than cores, for many tests wait for a deadline or a disk most of their time.
# The files of most tests are in memory (tests/conftest.py); REGFS_TESTS_ON_DISK=1 puts all on the disk of TMPDIR.
# What pip does for an installed program, compileall does here: with PYTHONDONTWRITEBYTECODE each start would compile.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
WORKERS ?= 3
BIN := $(VENV)/bin
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)

.PHONY: help run test check bench install uninstall deb debtest clean

help: ## show this
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 12
	@echo "Variables: VENV=$(VENV)  PREFIX=$(PREFIX)  WORKERS=$(WORKERS) (test processes)  TESTS=tests  REGISTRY=host:port (for run)"
	@echo "           BENCH='--driver fusepy --only hello --json out.json' (for bench; BENCH=--help lists all)"

run: $(VENV)/.run-ready ## mount a registry, list it, read it, chroot into hello-world, unmount
	@.ci/install-packages run
	@.ci/check-fuse
	@$(BIN)/python -m compileall -q regfs
	@$(BIN)/python -m tests.support.demo $(REGISTRY)

test: $(VENV)/.test-ready ## run all tests (about four minutes on two cores)
	@.ci/install-packages run test
	@.ci/check-fuse
	@$(BIN)/python -m compileall -q regfs
	@PYTHON=$(BIN)/python .ci/run-tests -n $(WORKERS) --dist worksteal $(or $(TESTS),tests)

check: $(VENV)/.test-ready ## lint, formatting, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict regfs tests
	$(BIN)/python -m pytest -q tests/test_layering.py

bench: $(VENV)/.test-ready ## measure against what one would use instead; builds its image the first time
	@.ci/install-packages run bench
	@.ci/check-fuse
	@$(BIN)/python -m compileall -q regfs
	@$(BIN)/python -m tests.bench $(BENCH)

install: ## install the program, completion, manual and units, below ~/.local or for root /usr/local
	@.ci/install-packages install
	@.ci/install $(PREFIX)

uninstall: ## remove what `make install` has put
	@.ci/install --undo $(PREFIX)

deb: ## build a Debian package for the release of this machine, into dist/
	@.ci/install-packages deb
	@.ci/deb/build

debtest: ## build it for Debian 12 and 13, each in a fresh chroot, install it in another and use it (root; minutes)
	@.ci/install-packages debtest
	@.ci/check-fuse
	@.ci/deb/test $(or $(SUITES),bookworm trixie)

clean: ## remove the virtual environment and everything that was generated
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made again when the Python that it was made with is gone. fusepy comes as source alone: older pips
# want setuptools and wheel for that.
$(VENV)/bin/python:
	@.ci/install-packages run $(filter test bench,$(MAKECMDGOALS))
	python=$$(.ci/find-python) && rm -rf $(VENV) && "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet setuptools wheel

# A plain path entry: for our layout setuptools would install an import finder, which every Python there loads at start.
EDITABLE := --config-settings editable_mode=compat --editable

$(VENV)/.run-ready: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(EDITABLE) .
	@touch $@

$(VENV)/.test-ready: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(EDITABLE) '.[test]'
	@touch $(VENV)/.run-ready $@
