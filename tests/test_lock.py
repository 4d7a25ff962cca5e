"""The releases that CI installs fit what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PLATFORM = {"python_version": "3.11", "python_full_version": "3.11.4", "sys_platform": "linux"}


def locked() -> dict[str, str]:
    """Every package of the lock with its release."""
    lines = (ROOT / ".ci" / "requirements.txt").read_text().splitlines()
    return dict(line.removesuffix(" \\").split("==") for line in lines if "==" in line)


def asked() -> list[Requirement]:
    """What pyproject.toml asks for, for development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, groups = [Requirement(line) for line in project["dependencies"]], ["dev"]
    while groups:
        for requirement in map(Requirement, project["optional-dependencies"][groups.pop()]):
            if requirement.name == project["name"]:
                groups += sorted(requirement.extras)
            else:
                found.append(requirement)
    return found


@pytest.mark.parametrize("requirement", asked(), ids=str)
def test_the_lock_has_a_release_that_fits(requirement):
    if requirement.marker is None or requirement.marker.evaluate(PLATFORM):
        release = locked().get(canonicalize_name(requirement.name))
        assert release is not None and requirement.specifier.contains(release, prereleases=True), "run `make lock`"


def test_every_release_has_a_hash_and_no_address():
    text = (ROOT / ".ci" / "requirements.txt").read_text()
    assert len(re.findall(r"^\S+==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)) == len(locked()) > 100
    assert "://" not in text and "--index" not in text
