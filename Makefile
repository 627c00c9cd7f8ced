# `make quickstart` and `make test` do their own set-up on a fresh machine with Python 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: quickstart test test-fast test-wheel lint format bench clean

quickstart: $(VENV)/.quickstart
	$(BIN)/selfinstruct fetch smollm2-135m-instruct
	$(BIN)/selfinstruct run recipes/quickstart.yaml

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow"

# The same suite against the built wheel, away from the checkout.
test-wheel: $(VENV)/.dev
	$(BIN)/python tests/run_against_wheel.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/engine.py --check
	$(BIN)/python benchmarks/filters.py --check

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the quickstart needs (a minute or two, once) ..."
	$(PIP) -e ".[local,train,report]"
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the tests need (a minute or two, once) ..."
	$(PIP) -e ".[dev]"
	@touch $@ $(VENV)/.quickstart

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
