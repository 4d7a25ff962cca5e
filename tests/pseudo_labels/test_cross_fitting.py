from pathlib import Path

import pytest

from boxless.cached_dataset import CachedDataset
from boxless.config import resolve
from boxless.errors import BoxlessError
from boxless.methods import preset
from boxless.pseudo_labels.cross_fitting import draw_folds, first_round_config
from boxless.pseudo_labels.recipe import cross_fitting_config, method_config
from boxless.structures import Dataset, Sample


def data_of(*keys: str) -> CachedDataset:
    """A set with images of these contents."""
    samples = tuple(Sample(str(row), Path(key), frozenset()) for row, key in enumerate(keys))
    dataset = Dataset("some", ("a",), samples)
    return CachedDataset(dataset, keys, ((1, 1),) * len(keys), None, None, {}, {})  # type: ignore[arg-type]


def test_folds_differ_in_size_by_at_most_one_and_depend_on_the_seed():
    data = data_of(*"abcdefghijk")
    folds = draw_folds(data, 3, 0)
    assert sorted((folds == fold).sum() for fold in range(3)) == [3, 4, 4]
    assert folds.tolist() == draw_folds(data, 3, 0).tolist() != draw_folds(data, 3, 1).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_an_image_share_a_fold(seed: int):
    folds = draw_folds(data_of(*"abcdabcaefgh"), 2, seed)
    assert folds[0] == folds[4] == folds[7] and folds[1] == folds[5] and folds[2] == folds[6]


def test_fewer_images_than_folds_are_an_error():
    with pytest.raises(BoxlessError, match="some: 1 image is too few for 2 folds; take cam"):
        draw_folds(data_of("a", "a"), 2, 0)


def test_networks_of_the_first_round_get_two_thirds_of_the_steps_and_no_mosaics():
    config = resolve(preset("seeded"), options=["training.steps=100", "pseudo_labels.mosaics=7"])
    first = first_round_config(config)
    assert (first.training.steps, first.pseudo_labels.mosaics) == (67, 0)
    by_epochs = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 8})})
    assert first_round_config(by_epochs).training.epochs == 6


def test_networks_that_score_no_proposals_are_cross_fitted_with_the_settings_of_seeded():
    options = ["head.pca_dims=[9, 5]", "proposals.size=100", "pseudo_labels.folds=3", "training.workers=2"]
    options += ["training.steps=50", "views.scales=[96]", "backbone.name=resnet18"]
    student = resolve(preset("student"), options=options, seed=7)
    found = cross_fitting_config(student)
    given = {"views": {"scales": [96]}, "training": {"workers": 2}, "backbone": {"name": "resnet18"}}
    same = ["head.pca_dims=[9, 5]", "proposals.size=100", "pseudo_labels.folds=3"]
    assert found == resolve(preset("seeded"), options=same, seed=7, **given)
    seeded = resolve(preset("seeded"), seed=7)
    assert cross_fitting_config(seeded) is seeded


def test_another_method_on_the_same_maps_keeps_seed_backbone_views_and_process_settings():
    options = ["training.accumulate=2", "training.steps=9", "training.precision=bf16", "training.workers=1"]
    options += ["views.flips=true", "backbone.output_stride=8"]
    found = method_config(resolve(preset("seeded"), options=options, seed=3), "cam")
    assert (found.method, found.seed, found.training.precision, found.training.workers) == ("cam", 3, "bf16", 1)
    assert found.training.accumulate == 1
    assert found.views.flips and found.backbone.output_stride == 8
    assert found.training.steps == resolve(preset("cam")).training.steps
