"""Boxes for the tags of every picture: those of the heatmaps, where heads taught by other pictures agree.

A head that has learned from a picture's own box would only repeat it; one that has not is a second opinion (multi-fold
multiple-instance learning; Cinbis, Verbeek, Schmid, PAMI 2017). The boxes of all heatmaps teach the heads of the first
round, those that were agreed on the heads of the next, which know better.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from accelerate.utils import broadcast_object_list

from boxless.config import PseudoBoxConfig
from boxless.devices import full_width, one_thread_a_picture
from boxless.errors import BoxlessError
from boxless.inference import Detector
from boxless.methods.agreement import agreed
from boxless.methods.mining import snap
from boxless.prepare import Prepared
from boxless.progress import console, track_threads
from boxless.structures import Annotations, Dataset, IntArray


def find_boxes(
    ready: Prepared,
    config: PseudoBoxConfig,
    seed: int,
    localizer: Detector,
    teach: Callable[[int, int, Prepared], Detector],
) -> Prepared:
    """Give every tag of every picture a box.

    Args:
        ready: the pictures, with tags and proposals.
        config: number of folds, and what counts as agreement.
        seed: decides which picture is in which fold.
        localizer: gives the first boxes.
        teach: trains the head of a round and fold, both counted from one, with the boxes of all pictures
            that are not in the fold.

    Returns:
        The same pictures with boxes; those that the opinions differ on are marked difficult.

    Raises:
        BoxlessError: there are fewer pictures than folds.
    """
    folds = _folds(ready, config.folds, seed)
    first = _snapped(ready, located(localizer, ready, range(len(folds)), "Boxes of heatmaps"))
    second = first
    for turn in range(1, config.rounds + 1):
        before, second = second, list(first)
        for fold in range(config.folds):
            others, own = np.flatnonzero(folds != fold).tolist(), np.flatnonzero(folds == fold).tolist()
            console.print(
                f"Second opinion {fold + 1} of {config.folds}, round {turn} of {config.rounds}", highlight=False
            )
            boxes = [first[row] for row in others]
            if turn > 1:
                # Within what teaches, or all that is kept of a rare class may lie in the other fold.
                merged = agreed(boxes, [before[row] for row in others], config.agreement)
                boxes = _snapped(ready.part(others), merged)
            detector = teach(turn, fold + 1, ready.part(others, boxes))
            for row, found in zip(own, located(detector, ready, own, "Second opinion"), strict=True):
                second[row] = found
    boxes = _snapped(ready, agreed(first, second, config.agreement))
    return ready.part(range(len(boxes)), boxes)


def agreement(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How many of the pseudo boxes of each class are agreed on, for the manifest: `kept` of `all`."""
    boxes = [sample.annotations for sample in dataset.samples if sample.annotations is not None]
    found = {}
    for label, name in enumerate(dataset.classes):
        of_class = [own.difficult[own.labels == label] for own in boxes]
        found[name] = {"kept": sum(int((~part).sum()) for part in of_class), "all": sum(map(len, of_class))}
    return found


def teaching(ready: Prepared) -> Prepared:
    """Only the pictures whose boxes teach something: an object, or that there is none at all.

    Raises:
        BoxlessError: there is no such picture.
    """
    rows = []
    for row, sample in enumerate(ready.dataset.samples):
        boxes = sample.annotations
        if boxes is not None and (not boxes.difficult.all() or not (sample.tags or sample.unsure)):
            rows.append(row)
    if not rows:
        raise BoxlessError(f"{ready.dataset.name}: no picture that can be read has a tag or box to learn from")
    return ready.part(rows)


def _folds(ready: Prepared, number: int, seed: int) -> IntArray:
    """The fold of every picture, from 0 on; (pictures,)."""
    # Copies of a picture share one fold, or a head would judge what it has learned from.
    unique = list(dict.fromkeys(ready.keys))
    if len(unique) < number:
        raise BoxlessError(f"{ready.dataset.name}: {len(unique)} picture(s) are too few for {number} folds; take cam")
    parts = dict(zip(unique, np.random.default_rng(seed).permutation(len(unique)) % number, strict=True))
    return np.array([parts[key] for key in ready.keys])


def located(detector: Detector, ready: Prepared, rows: Sequence[int], description: str) -> list[Annotations]:
    """The likeliest box of every tag of these pictures."""

    def locate(row: int) -> Annotations:
        labels = np.array(sorted(ready.dataset.samples[row].tags), np.int64)
        boxes = np.zeros((0, 4), np.float32)
        if len(labels):
            maps = [ready.map(row, view) for view in detector.views]
            proposals = ready.boxes(row) if detector.proposals else None
            boxes = detector.locate(maps, proposals, ready.sizes[row], labels.tolist())
        return Annotations(boxes, labels, np.zeros(len(labels), np.bool_))

    with one_thread_a_picture(detector.device) as threads, full_width(detector.device):
        found = list(track_threads(locate, rows, description, threads))
    # Of several processes all are taught what the first one found, or their heads would learn from boxes that differ.
    return list(broadcast_object_list(found))


def _snapped(ready: Prepared, boxes: Sequence[Annotations]) -> list[Annotations]:
    """Boxes of every picture, moved onto the edges that its proposals end at."""
    return [replace(found, boxes=snap(found.boxes, ready.boxes(row))) for row, found in enumerate(boxes)]
