PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROCESSES ?= 2
SIDE_BY_SIDE := -n $(PROCESSES) --dist loadfile

.PHONY: quickstart test test-all test-wide

quickstart: $(VENV)/.installed
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

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.installed-test-all: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[test,clients]"
	touch $@

$(VENV)/.installed-test-wide: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable ".[test,mteb]"
	touch $@
