from pathlib import Path

import pytest
from random_runs import Exported, random_run

from boxless.datasets import load_dataset
from boxless.detector import Detector
from boxless.export.onnx import export_onnx
from boxless.runtime import Runtime


@pytest.fixture(scope="session")
def images(demo: Path) -> list[Path]:
    return [sample.path for sample in load_dataset(demo, "val").samples]


def _exported(folder: Path, method: str, images: list[Path]) -> Exported:
    run, file = random_run(folder / "run", method, images=images[:3]), folder / "detector.onnx"
    export_onnx(run, file)
    return Exported(run, file, Detector.load(run, "cpu"), Runtime(file))


@pytest.fixture(scope="session")
def student(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a head on the cells of a map."""
    return _exported(tmp_path_factory.mktemp("student"), "student", images)


@pytest.fixture(scope="session")
def seeded(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a head on proposals."""
    return _exported(tmp_path_factory.mktemp("seeded"), "seeded", images)


@pytest.fixture(scope="session", params=["student", "seeded"])
def exported(request: pytest.FixtureRequest) -> Exported:
    """Of either."""
    found: Exported = request.getfixturevalue(request.param)
    return found
