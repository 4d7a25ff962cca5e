#!/bin/sh
# Trains a student on the boxes of a drawn data set, which needs no cross-fitting, and exports it; then installs what
# docker/Dockerfile installs into an empty environment, predicts and serves there with the file, and prints how large the
# environment is.
# usage: try_runtime.sh PYTHON WHEEL BIN, the folder of a boxless that trains
set -eu
python=$1 wheel=$(realpath "$2") bin=$(realpath "$3") folder=$(mktemp -d)
requirements=$(realpath "$(dirname "$0")/../docker/requirements.txt")
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
export BOXLESS_CACHE="$folder/cache"
"$bin/python" -c "from pathlib import Path; from boxless.demo.data import make_demo; make_demo(Path('.'), seed=0, train=60, val=10)"
"$bin/boxless" train VOC-demo --split train --method student --out run supervision=boxes training.steps=40
"$bin/boxless" export run --out detector.onnx
"$python" -m venv venv
venv/bin/pip install --quiet --requirement "$requirements"
venv/bin/pip install --quiet --no-deps "$wheel"
du -sm venv | awk '{print "The environment takes " $1 " MB"}'
venv/bin/python -c "import boxless.runtime, sys; assert 'torch' not in sys.modules"
venv/bin/python -c "from boxless.runtime import Runtime; print(Runtime('detector.onnx').predict('VOC-demo/JPEGImages/000001.jpg'))"
venv/bin/boxless predict detector.onnx VOC-demo/JPEGImages --out found
test -s found/predictions.json
venv/bin/boxless serve detector.onnx --port 8765 &
server=$!
venv/bin/python - <<'END'
import json, time, urllib.request

for _ in range(100):
    try:
        answer = urllib.request.urlopen("http://127.0.0.1:8765/model", timeout=5)
        break
    except OSError:
        time.sleep(0.2)
print(json.load(answer)["classes"])
END
