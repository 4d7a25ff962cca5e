# Needs Python 3.11.4 or newer with venv and pip, and nothing else; everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test campaign check docs wheel

demo: .venv/installed
	$(BIN)/boxless demo --out runs/demo

test: .venv/installed
	$(BIN)/pytest --durations=10

# Kills, failing disks, damaged files and hostile requests by the thousand, which takes hours: BOXLESS_CAMPAIGN=0.05 is a
# twentieth of it.
campaign: .venv/installed
	$(BIN)/pytest -m campaign tests/campaign

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/vocabulary.py

docs: .venv/installed
	$(BIN)/sphinx-build -W --keep-going --fresh-env --quiet docs docs/_build

# The wheel, installed alone into an empty environment that runs the demo set from doctor to predict.
wheel: .venv/installed
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	sh tools/try_wheel.sh $(PYTHON) dist/boxless-*.whl

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
