# Needs Python 3.11.4 or newer with venv and pip, and nothing else; everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs

demo: .venv/installed
	$(BIN)/boxless demo --out runs/demo

test: .venv/installed
	$(BIN)/pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going --fresh-env --quiet docs docs/_build

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
