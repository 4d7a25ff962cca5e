#!/bin/sh
# Installs a wheel alone into an empty environment, and runs doctor, train and predict there on a drawn data set.
# usage: try_wheel.sh PYTHON WHEEL
set -eu
python=$1 wheel=$(realpath "$2") folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "$wheel"
cd "$folder"
export BOXLESS_CACHE="$folder/cache"
venv/bin/python -c "from pathlib import Path; from boxless.demo.data import make_demo; make_demo(Path('.'), seed=0, train=60, val=10)"
venv/bin/boxless doctor VOC-demo
venv/bin/boxless train VOC-demo --split train --out run training.steps=40
venv/bin/boxless predict run VOC-demo/JPEGImages --out found
venv/bin/python -c "import boxless; print(boxless.Detector.load('run').predict(['VOC-demo/JPEGImages/' + p.name for p in __import__('pathlib').Path('VOC-demo/JPEGImages').iterdir()][:2]))"
