"""Scores that a person can set a threshold on: Platt scaling of each class, from tags alone.

Tags do not tell whether a box is right, but they tell whether an image has the class. After calibration a score is an
estimate of that: of the images whose best box of a class scores 0.8, about 80 % have the class, where classes are as
frequent as in training. It says nothing about how well the box fits. An image whose best box scores more has the class
more often, so of all boxes with 0.8 at least 80 % lie in images that have their class.

The logit of a score is scaled and shifted, by a positive factor: boxes of a class keep their order.

Sources: Platt, "Probabilistic outputs for support vector machines", 1999, whose targets suit classes of few images;
Kuzucu et al., ECCV 2024, who find class-wise Platt scaling to calibrate object detectors better than training for it.

NumPy alone: trained networks and exported files share it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.structures import Detections, FloatArray, IntArray

CLIPPED = 1e-6
"""Scores nearer to 0 or 1 are taken for this near."""
MIN_SLOPE, MAX_SLOPE = 0.01, 5.0
"""The least factor, of classes whose scores tell nothing: all become about the share of images that have the class. The
greatest, of few images whose scores are nearly the same: others would become 0 and 1."""
IMAGES_PER_CLASS = 100
"""Most images chosen for having a class, and for lacking it; two numbers are fitted to them."""
BINS = 10
"""Bins of a reliability diagram."""

LARGEST = 1e6
"""Largest magnitude of both numbers; those of damaged files could give scores that are no numbers."""

_STEPS, _TOLERANCE = 100, 1e-10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A score s of a class becomes sigmoid(slope * logit(s) + intercept).

    Args:
        slopes: (classes,) float64, positive.
        intercepts: (classes,) float64.
    """

    slopes: Floats
    intercepts: Floats

    def __call__(self, scores: FloatArray, labels: IntArray) -> FloatArray:
        """Calibrated scores (N,) float32 of scores (N,) of these classes (N,)."""
        return np.asarray(_sigmoid(self.slopes[labels] * _logit(scores) + self.intercepts[labels]), np.float32)

    def apply(self, found: Detections) -> Detections:
        """The same boxes with calibrated scores, best first."""
        scores = self(found.scores, found.labels)
        calibrated = replace(found, scores=scores, raw_scores=found.scores)
        return calibrated[np.argsort(-scores, kind="stable")]

    def by_class(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        """Both numbers of each class, for a manifest or the metadata of a file; `read_calibration` reads them."""
        pairs = zip(classes, self.slopes.tolist(), self.intercepts.tolist(), strict=True)
        return {name: {"slope": slope, "intercept": intercept} for name, slope, intercept in pairs}


def read_calibration(content: Any, classes: Sequence[str]) -> Calibration | None:
    """What `Calibration.by_class` gave; None for None.

    Raises:
        ValueError: it is something else.
    """
    if content is None:
        return None
    if not isinstance(content, Mapping) or set(content) != set(classes):
        raise ValueError("the calibration is not of these classes")
    rows = [content[name] for name in classes]
    try:
        values = np.array([[row["slope"], row["intercept"]] for row in rows], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("the calibration lacks numbers") from None
    if values.shape != (len(classes), 2) or not (np.abs(values) < LARGEST).all() or not (values[:, 0] > 0).all():
        raise ValueError("the calibration has numbers that do not fit")
    return Calibration(values[:, 0], values[:, 1])


def manifest_calibration(file: Path, manifest: Mapping[str, Any]) -> Calibration | None:
    """How the scores of a run are calibrated, by its manifest, which `file` holds; None where they are not.

    Raises:
        BoxlessError: the manifest is damaged.
    """
    try:
        return read_calibration(manifest.get("calibration"), manifest["classes"])
    except ValueError as error:
        raise BoxlessError(f"{file}: damaged ({error}); train again") from None


def fit_calibration(scores: FloatArray, image_labels: FloatArray, shares: FloatArray | None = None) -> Calibration:
    """Fit both numbers of each class.

    A class that all images have, or none, keeps its scores.

    Args:
        scores: (images, classes), of the best box of each class, by a network that was not trained on the image; 0
            where there is none.
        image_labels: (images, classes); 1 present, 0 absent, NaN unknown.
        shares: (classes,), of images with the class among all, where these images were chosen by class.
    """
    fitted = []
    for label in range(scores.shape[1]):
        known = ~np.isnan(image_labels[:, label])
        present = image_labels[known, label] == 1
        share = None if shares is None else float(shares[label])
        both = present.any() and not present.all()
        fitted.append(_fit_class(_logit(scores[known, label]), present, share) if both else (1.0, 0.0))
    values = np.array(fitted, np.float64).reshape(-1, 2)
    return Calibration(values[:, 0], values[:, 1])


def choose_images(image_labels: FloatArray, candidates: IntArray, seed: int) -> IntArray:
    """Images to fit to: of every class at most `IMAGES_PER_CLASS` that have it, and as many that do not; sorted rows.

    Args:
        image_labels: (images, classes); 1 present, 0 absent, NaN unknown.
        candidates: rows to choose from.
        seed: of the choice.
    """
    order = np.random.default_rng(seed).permutation(candidates)
    chosen = [
        order[image_labels[order, label] == value][:IMAGES_PER_CLASS]
        for label in range(image_labels.shape[1])
        for value in (0, 1)
    ]
    return np.unique(np.concatenate([order[:0], *chosen]))


def _fit_class(x: Floats, present: NDArray[np.bool_], share: float | None) -> tuple[float, float]:
    positives, negatives = int(present.sum()), int((~present).sum())
    # Platt's targets: as if one more image of each kind had been seen, so that few images give no certainty.
    targets = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = np.ones(len(x))
    if share is not None:
        weights = np.where(present, share / positives, (1 - share) / negatives) * len(x)
    columns = np.stack([x, np.ones(len(x))], axis=1)
    slope, intercept = _logistic_regression(columns, np.zeros(len(x)), targets, weights).tolist()
    if not MIN_SLOPE <= slope <= MAX_SLOPE:
        slope = min(max(slope, MIN_SLOPE), MAX_SLOPE)
        (intercept,) = _logistic_regression(columns[:, 1:], slope * x, targets, weights).tolist()
    return slope, intercept


def _logistic_regression(columns: Floats, offset: Floats, targets: Floats, weights: Floats) -> Floats:
    """Weights (P,) of columns (N, P), by Newton's method; a step that does not lower the loss is halved."""

    def loss(values: Floats) -> float:
        logits = columns @ values + offset
        return float(weights @ (np.logaddexp(0, logits) - targets * logits))

    found: Floats = np.zeros(columns.shape[1])
    for _ in range(_STEPS):
        shares = _sigmoid(columns @ found + offset)
        gradient = columns.T @ (weights * (shares - targets))
        hessian = columns.T @ (columns * (weights * shares * (1 - shares))[:, None])
        # There is more than one solution where all scores are the same.
        step = np.linalg.lstsq(hessian, gradient, rcond=_TOLERANCE)[0]
        before = loss(found)
        while loss(found - step) > before and np.abs(step).max() > _TOLERANCE:
            step /= 2
        found = found - step
        if np.abs(step).max() <= _TOLERANCE:
            break
    return found


def best_scores(detections: Sequence[Detections], raw: bool = False) -> FloatArray:
    """The best score of each class in each image: (images, classes) float32, 0 where there is no box.

    Args:
        detections: one an image.
        raw: take the scores before calibration.
    """
    best = np.zeros((len(detections), len(detections[0].classes)), np.float32)
    for row, found in zip(best, detections, strict=True):
        np.maximum.at(row, found.labels, found.ranking_scores if raw else found.scores)
    return best


def reliability(scores: FloatArray, image_labels: FloatArray) -> list[tuple[float, float, int]]:
    """A reliability diagram: for each of `BINS` equal intervals of the score that has any, its mean score, the share of
    images that have the class, and their number.

    Args:
        scores: any shape, from 0 to 1; those of 0, where there is no box, are left out.
        image_labels: of the same shape; 1 present, 0 absent, NaN unknown, which are left out.
    """
    counted = (scores > 0) & ~np.isnan(image_labels)
    values, present = scores[counted].astype(np.float64), image_labels[counted].astype(np.float64)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    rows = [bins == number for number in np.unique(bins)]
    return [(float(values[row].mean()), float(present[row].mean()), int(row.sum())) for row in rows]


def expected_calibration_error(diagram: Sequence[tuple[float, float, int]]) -> float | None:
    """The mean difference of score and share over a reliability diagram, by number (Naeini et al., AAAI 2015); None for
    an empty one."""
    total = sum(number for *_, number in diagram)
    return sum(number * abs(score - share) for score, share, number in diagram) / total if total else None


def _logit(scores: FloatArray) -> Floats:
    clipped = np.clip(scores.astype(np.float64), CLIPPED, 1 - CLIPPED)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float64)
