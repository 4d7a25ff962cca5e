"""What docker/Dockerfile installs, which `make runtime` tries in an empty environment."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_requires_what_the_package_does_but_for_training():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {*project["dependencies"], *extras["serve"], *extras["runtime"]}
    lines = (ROOT / "docker" / "requirements.txt").read_text().splitlines()
    wanted = {line for line in lines if not line.startswith("#")}
    # The runtime needs none of OpenCV's further modules.
    assert wanted - known == {"opencv-python-headless>=4.9"}
    assert wanted >= {*extras["serve"], *extras["runtime"]}
    names = {re.split(r"\W", line)[0] for line in wanted}
    assert not names & {"torch", "torchvision", "timm", "accelerate", "safetensors"}


def test_the_script_installs_the_same():
    for file in ("docker/Dockerfile", "tools/try_runtime.sh"):
        text = (ROOT / file).read_text()
        assert "docker/requirements.txt" in text and "--no-deps" in text
