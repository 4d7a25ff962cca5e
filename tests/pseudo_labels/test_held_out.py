"""What is predicted for images that a network was not trained on, beyond the boxes of their tags."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boxless.calibration import manifest_calibration
from boxless.errors import BoxlessError
from boxless.pseudo_labels import held_out
from boxless.structures import FloatArray


def test_scores_come_from_the_network_that_was_not_trained_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    tags, folds = random.integers(0, 2, (60, 2)).astype(np.float32), np.arange(60) % 3 - 1
    asked: list[tuple[int, int]] = []

    def network(fold: int) -> Any:
        def class_scores(row: int) -> FloatArray:
            asked.append((fold, row))
            return np.where(tags[row] == 1, 0.7, 0.2).astype(np.float32)

        return SimpleNamespace(class_scores=class_scores, read=lambda data, row: row)

    data: Any = SimpleNamespace(dataset=SimpleNamespace(image_labels=lambda: tags))
    monkeypatch.setattr(held_out, "map_rows", lambda predict, _, rows, __: [predict(row) for row in rows])
    found = held_out.calibrated([network(0), network(1)], data, folds, 0)
    # Images of no fold, on which all networks were trained, are left out.
    assert sorted(row for _, row in asked) == [row for row in range(60) if row % 3]
    assert all(fold == row % 3 - 1 for fold, row in asked)
    share = (tags[folds >= 0] == 1).mean(axis=0)
    high, low = (found(np.full(2, value, np.float32), np.arange(2)) for value in (0.7, 0.2))
    assert (high > 0.9).all() and (low < 0.1).all() and (share > 0).all()


def test_where_no_tag_is_known_scores_are_kept() -> None:
    unknown = np.full((4, 2), np.nan, np.float32)
    data: Any = SimpleNamespace(dataset=SimpleNamespace(image_labels=lambda: unknown))
    detector: Any = SimpleNamespace(in_parallel=lambda: nullcontext(1))
    found = held_out.calibrated([detector], data, np.zeros(4, np.int64), 0)
    assert (found.slopes.tolist(), found.intercepts.tolist()) == ([1, 1], [0, 0])


def test_runs_of_before_have_no_calibration_and_a_damaged_one_is_named() -> None:
    assert manifest_calibration(Path("run/manifest.json"), {"classes": ["cat"]}) is None
    with pytest.raises(BoxlessError, match=r"^run/manifest\.json: damaged \(the calibration is not of these classes\)"):
        manifest_calibration(Path("run/manifest.json"), {"classes": ["cat"], "calibration": {}})
