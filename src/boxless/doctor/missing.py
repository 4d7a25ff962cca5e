"""Tags that are likely missing: images that look as if they showed a class which their tags say they do not.

Confident learning (Northcutt, Jiang, Chuang, JAIR 2021, section 3.1), one class after the other: an image without a tag
is named if the probability of the class, from classifiers that were trained on other images, is at least its mean over
the images with the tag.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import nn

from boxless.cached_dataset import cache_dataset
from boxless.config import resolve
from boxless.devices import default_device, one_thread_per_image
from boxless.doctor.finding import Finding
from boxless.doctor.images import TaggedImage
from boxless.features import FeatureStore
from boxless.methods import DEFAULT_METHOD, preset
from boxless.methods.losses import image_label_loss
from boxless.network import build_network
from boxless.parallel import map_threads
from boxless.structures import Dataset, FloatArray, Sample
from boxless.views import views_of

FOLDS = 5
"""An image is judged by a classifier that was trained on the other four fifths."""
STEPS, LR, WEIGHT_DECAY = 200, 1e-2, 1e-1
"""AdamW on all images at once, over standardised averages of the maps."""

MIN_AUC = 0.8
"""No image is named of a class whose out-of-fold probabilities have a smaller area under the ROC curve: where they tell
nothing, as in small sets, a third of the images would be."""


def check_missing(images: Sequence[TaggedImage], names: Sequence[str], wanted: Sequence[str]) -> list[Finding]:
    """A note for each class that tags likely lack, with the images, the likeliest first.

    Args:
        images: of different contents.
        names: the classes.
        wanted: of these, the ones to report on.
    """
    index = {name: label for label, name in enumerate(names)}
    samples = (
        Sample(
            str(one.path),
            one.path,
            frozenset(map(index.__getitem__, one.tags)),
            frozenset(map(index.__getitem__, one.unsure)),
        )
        for one in images
    )
    dataset = Dataset("images", tuple(names), tuple(samples))
    paths, descriptors = average_features(dataset)
    known = {sample.path: row for row, sample in enumerate(dataset.samples)}
    probabilities = likely_missing(descriptors, dataset.image_labels()[[known[path] for path in paths]])
    findings = []
    for name in wanted:
        own = probabilities[:, index[name]]
        rows = [row for row in np.argsort(-own, kind="stable") if own[row] > 0]
        if rows:
            what = f"images look as if they showed {name}, but are not tagged with it: {len(rows):,}"
            fix = f"look at them: add the tag, or mark it unknown (?{name})"
            findings.append(Finding("missing tags", "note", what, fix, [name], [[str(paths[row])] for row in rows]))
    return findings


def average_features(dataset: Dataset) -> tuple[list[Path], FloatArray]:
    """The images that can be read, and the mean of the feature map of each, (N, C); training fills the same cache."""
    config = resolve(preset(DEFAULT_METHOD))
    network, device = build_network(config, len(dataset.classes)), default_device()
    (view,) = views_of(config.views)
    features = FeatureStore(network.backbone, network.frozen, config.backbone, device)
    data = cache_dataset(dataset, features, [view], None)

    def average(row: int) -> FloatArray:
        mean: FloatArray = data.map(row, view).float().mean(dim=(1, 2)).numpy()
        return mean

    with (
        one_thread_per_image(device) as threads,
        closing(map_threads(average, range(len(data)), "Averages", threads)) as means,
    ):
        return [sample.path for sample in data.dataset.samples], np.array(list(means))


def likely_missing(descriptors: FloatArray, image_labels: FloatArray) -> FloatArray:
    """The out-of-fold probability of the classes that tags likely lack, (N, classes); 0 elsewhere.

    Args:
        descriptors: (N, C).
        image_labels: (N, classes), 1 present, 0 absent, NaN unknown.
    """
    probabilities = _out_of_fold(descriptors, image_labels)
    present = image_labels == 1
    # Without an image of the class nothing is likely.
    means = np.where(present, probabilities, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1e-9)
    means[~present.any(axis=0)] = np.inf
    means[[_auc(own, labels) < MIN_AUC for own, labels in zip(probabilities.T, image_labels.T, strict=True)]] = np.inf
    found: FloatArray = np.where((image_labels == 0) & (probabilities >= means), probabilities, 0)
    return found


def _auc(probabilities: FloatArray, image_labels: FloatArray) -> float:
    """How often an image with a class is likelier to show it than one without, of all pairs of such images."""
    absent = np.sort(probabilities[image_labels == 0])
    lower = np.searchsorted(absent, probabilities[image_labels == 1])
    return float(lower.sum() / max(lower.size * absent.size, 1))


def _out_of_fold(descriptors: FloatArray, image_labels: FloatArray) -> FloatArray:
    """The probability of every class by a linear classifier that was trained on other images, (N, classes)."""
    deviations = np.maximum(descriptors.std(axis=0), 1e-6)
    inputs = torch.from_numpy(((descriptors - descriptors.mean(axis=0)) / deviations).astype(np.float32))
    labels = torch.from_numpy(image_labels)
    folds = torch.from_numpy(np.random.default_rng(0).permutation(len(inputs)) % FOLDS)
    probabilities = torch.zeros_like(labels)
    for fold in range(FOLDS):
        classifier = nn.Linear(inputs.shape[1], labels.shape[1])
        nn.init.zeros_(classifier.weight)
        nn.init.zeros_(classifier.bias)
        optimizer = torch.optim.AdamW(classifier.parameters(), LR, weight_decay=WEIGHT_DECAY)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = image_label_loss(classifier(inputs[folds != fold]), labels[folds != fold], logits=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            probabilities[folds == fold] = classifier(inputs[folds == fold]).sigmoid()
    found: FloatArray = probabilities.numpy()
    return found
