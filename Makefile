# Everything a fresh machine needs: Python 3.11 or newer, and make.
#
#   make demo     a vault in ./demo-vault whose notes get their pictures
#   make test     the whole test suite
#   make setup    only the environment (.venv)
#   make check    style, types and import rules
#   make bench    the benchmarks
#
# A machine without a CUDA GPU saves a large download by naming PyTorch's CPU index (the address is on
# PyTorch's "Get started" page):    make setup TORCH_INDEX=<address>
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf, …) are honoured.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
DEMO_DIR ?= demo-vault
TESTS ?=
# Test files side by side: most of them wait for a process or a clock.
WORKERS ?= 2

BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)
# Without --no-compile half of the time goes into byte code of modules that are never imported.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check

# Byte code is written where it is imported from; else every worker of every test compiles torch anew, which takes as long
# as importing it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(VENV)/.dev-is-ready

demo: $(VENV)/.is-ready
	$(BIN)/python -m loravault demo $(DEMO_DIR)

test: $(VENV)/.dev-is-ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: $(VENV)/.dev-is-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev-is-ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(DEMO_DIR) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "loravault needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "This Python cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# torch comes first and alone: what it is built for is decided here, and everything after finds it installed.
$(VENV)/.torch-is-ready: constraints.txt | $(BIN)/python
	@echo "Installing $(TORCH)$(if $(TORCH_INDEX), from $(TORCH_INDEX)) …"
	@$(if $(TORCH_INDEX),$(PIP_INSTALL) --no-deps --index-url "$(TORCH_INDEX)" "$(TORCH)",\
	  $(PIP_INSTALL) -c constraints.txt "$(TORCH)")
	@touch $@

$(VENV)/.is-ready: pyproject.toml constraints.txt $(VENV)/.torch-is-ready
	@echo "Installing loravault …"
	@$(PIP_INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev-is-ready: pyproject.toml constraints.txt $(VENV)/.torch-is-ready
	@echo "Installing loravault and what its tests need …"
	@$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.is-ready $@
