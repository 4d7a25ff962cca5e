# Needs Python 3.11.4 or newer with venv and pip, and nothing else; everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Processes that run the tests, of which each computes in one thread.
WORKERS ?= logical
# A file of pinned releases with hashes to install instead of the newest; .ci/run sets it.
LOCK ?=

.PHONY: demo test campaign check docs wheel runtime lock

demo: .venv/installed
	$(BIN)/boxless demo --out runs/demo

test: .venv/installed
	$(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --max-worker-restart 0 --durations=10

# Kills, failing disks, damaged files and hostile requests by the thousand, in twenty minutes: BOXLESS_CAMPAIGN=4 takes four
# times as many.
campaign: .venv/installed
	$(BIN)/pytest -m campaign tests/campaign tests/runtime

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

# A file of `boxless export` in an empty environment without PyTorch, as in docker/Dockerfile.
runtime: .venv/installed
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	sh tools/try_runtime.sh $(PYTHON) dist/boxless-*.whl $(BIN)

# The releases that CI installs, on Linux on x86_64 with Python 3.11: those in the file stay where they still fit.
lock: .venv/installed
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command 'make lock' \
		--python-version 3.11.4 --python-platform x86_64-manylinux_2_28 --extra dev \
		--output-file .ci/requirements.txt pyproject.toml .ci/requirements.in

.venv/installed: pyproject.toml $(LOCK)
	$(PYTHON) -m venv .venv
ifeq ($(LOCK),)
	$(BIN)/pip install --quiet --editable '.[dev]'
else
	$(BIN)/pip install --quiet --require-hashes --requirement $(LOCK)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
endif
	touch $@
