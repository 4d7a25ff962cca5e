"""Which classes are said to have boxes that may be wrong, and where it is said."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_results import Stub

from boxless.results import predict
from boxless.trust import untrusted_classes


@pytest.mark.parametrize(
    ("pseudo_labels", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"cat": {"agreement": 0.349}, "cow": {"agreement": 0.35}, "dog": {"agreement": None}}, {"cat": 0.349}),
        # Of a manifest that somebody has edited.
        (["cat"], {}),
        ({"cat": 0.1, "cow": {"agreement": "low"}, "dog": {}}, {}),
    ],
)
def test_classes_below_the_least_agreement_are_not_trusted(pseudo_labels: object, expected: dict[str, float]) -> None:
    manifest = {} if pseudo_labels is None else {"pseudo_labels": pseudo_labels}
    assert untrusted_classes(manifest) == expected


@pytest.mark.parametrize(("name", "warned"), [("cat", True), ("dog", False)])
def test_predict_warns_of_the_classes_it_finds(
    name: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    detector = Stub()
    detector.untrusted = {name: 0.12}
    with caplog.at_level(logging.WARNING, "boxless"):
        predict(detector, tmp_path / "a.png", tmp_path / "out", "csv")
    assert [f"{name} (0.12)" in message for message in caplog.messages] == ([True] if warned else [])
