PYTHON ?= python3
# if `python3` is too old, these are tried; a PYTHON that you name is never replaced
CANDIDATES = $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
VENV ?= .venv
BIN := $(VENV)/bin
PROCESSES ?= 2
SIDE_BY_SIDE := -n $(PROCESSES) --dist loadfile

.PHONY: quickstart test test-all test-wide test-dist dist publish

quickstart: $(VENV)/.installed-quickstart
	$(BIN)/vladva quickstart

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not wide"

test-all: $(VENV)/.installed-test-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not wide"
	$(BIN)/python -m pytest -m slow  # one at a time: some measure time or memory

test-wide: $(VENV)/.installed-test-wide
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m wide

test-dist: dist  # the wheel in a fresh environment, without this checkout
	tests/installed.sh $(BIN)/python dist/*.whl

dist: $(VENV)/.installed-dist  # the wheel is built from the sdist, so nothing that lies around here gets into it
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

publish: dist
	$(BIN)/python -m twine upload dist/*

# `venv` writes pip last: where it is missing, the environment is unfinished
$(BIN)/pip:
	@for python in $(CANDIDATES); do \
	    if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	        echo "$$python -m venv $(VENV)"; \
	        $$python -m venv $(VENV) && exit; \
	        $(if $(wildcard $(VENV)),,rm -rf $(VENV);) exit 1; \
	    fi; \
	done; \
	echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); expected Python 3.11 or later: install one and name it," \
	    "for example: make PYTHON=python3.12 quickstart" >&2; exit 1

INSTALLED := $(addprefix $(VENV)/.installed,-quickstart -test -test-all -test-wide -dist)
$(VENV)/.installed-quickstart: WANTED = --editable .
$(VENV)/.installed-test: WANTED = --editable ".[test]"
$(VENV)/.installed-test-all: WANTED = --editable ".[test,clients]"
$(VENV)/.installed-test-wide: WANTED = --editable ".[test,mteb,ray]"
$(VENV)/.installed-dist: WANTED = "build>=1.2.2" "twine>=6.1"

$(INSTALLED): pyproject.toml | $(BIN)/pip
	@$(BIN)/python -c '$(NEW_ENOUGH)' || { echo "$(VENV) holds $$($(BIN)/python --version 2>&1); expected Python 3.11" \
	    "or later: delete it (rm -rf $(VENV)) and run make again" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet $(WANTED)
	touch $@
