import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import as_stored
from torch import nn

from boxless.backbones import Backbone
from boxless.cached_dataset import CachedDataset, cache_dataset
from boxless.config import BackboneConfig, ProposalConfig
from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.features import FeatureStore
from boxless.images import content_key, image_size, read_image
from boxless.proposals import propose
from boxless.structures import Annotations, Dataset, Sample
from boxless.views import View

VIEWS = (View(64), View(64, True))
PROPOSALS = ProposalConfig(generator="grid", min_area=0.2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("BOXLESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_store(freeze: str = "all") -> FeatureStore:
    torch.manual_seed(0)
    stages = nn.Sequential(nn.Conv2d(3, 4, 3, stride=16, padding=1))
    backbone = Backbone(stages.eval(), 4, 16, (0.5,) * 3, (0.5,) * 3, "random", "none")
    return FeatureStore(backbone, backbone.split(freeze)[0], BackboneConfig(), torch.device("cpu"))


def few(demo: Path, *extra: Path) -> Dataset:
    """Three images of the demo set with other files between them."""
    dataset = load_dataset(demo, "train")
    strays = [Sample(path.stem, path, frozenset({1})) for path in extra]
    good = list(dataset.samples[:3])
    return replace(dataset, samples=(*strays[:1], good[0], *strays[1:], *good[1:]))


def broken_files(demo: Path, tmp_path: Path) -> tuple[Path, ...]:
    """Broken twice under two names, empty, not there."""
    whole = load_dataset(demo, "train").samples[0].path
    broken, copy, empty = (tmp_path / name for name in ("broken.jpg", "copy.jpg", "empty.png"))
    broken.write_bytes(whole.read_bytes()[:600])
    shutil.copy(broken, copy)
    empty.touch()
    return broken, copy, empty, tmp_path / "missing.jpg"


def ids(data: CachedDataset) -> list[str]:
    return [sample.id for sample in data.dataset.samples]


def test_proposals_and_maps_are_computed_and_found_by_key(demo: Path):
    dataset = few(demo)
    data = cache_dataset(dataset, make_store(), VIEWS, PROPOSALS)
    assert data.dataset == dataset
    assert data.skipped == {}
    assert data.seconds.keys() == {"proposals", "features"}
    assert data.proposals is not None
    for sample, key, size in zip(dataset.samples, data.keys, data.sizes, strict=True):
        assert key == content_key(sample.path)
        assert size == image_size(sample.path)
        image = read_image(sample.path)
        assert data.proposals.load(key).tolist() == propose(image, PROPOSALS).tolist()
        for view in VIEWS:
            assert torch.equal(
                data.features.load(key, sample.path, view), as_stored(data.features.extract(image, view))
            )


def test_methods_without_proposals_have_none(demo: Path, cache: Path):
    data = cache_dataset(few(demo), make_store(), VIEWS, None)
    assert data.proposals is None
    assert data.seconds.keys() == {"features"}
    assert not (cache / "proposals").exists()


@pytest.mark.parametrize("freeze", ["all", "none"])
@pytest.mark.parametrize("proposals", [PROPOSALS, None], ids=["proposals", "none"])
def test_images_that_cannot_be_read_are_left_out_and_reported(
    demo: Path, tmp_path: Path, proposals: ProposalConfig | None, freeze: str, caplog: pytest.LogCaptureFixture
):
    bad = broken_files(demo, tmp_path)
    data = cache_dataset(few(demo, *bad), make_store(freeze), VIEWS, proposals)
    good = load_dataset(demo, "train").samples[:3]
    assert ids(data) == [sample.id for sample in good]
    assert data.keys == tuple(content_key(sample.path) for sample in good)
    assert data.sizes == tuple(image_size(sample.path) for sample in good)
    # Each image is either kept or named with a reason, copies too.
    assert data.skipped.keys() == set(bad)
    assert "there is no such file" in data.skipped[bad[3]] or "No such file" in data.skipped[bad[3]]
    assert "4 images skipped" in caplog.text
    # The rest of the dataset is unchanged.
    assert data.dataset.classes == load_dataset(demo, "train").classes


def test_copies_of_a_good_image_are_both_kept(demo: Path, tmp_path: Path):
    copy = tmp_path / "copy.jpg"
    shutil.copy(load_dataset(demo, "train").samples[1].path, copy)
    data = cache_dataset(few(demo, copy), make_store(), VIEWS, PROPOSALS)
    assert ids(data)[0] == "copy"
    assert len(data.keys) == 4
    assert len(set(data.keys)) == 3
    assert data.keys[0] == data.keys[2]


def test_a_set_of_broken_images_is_an_error_with_a_reason(demo: Path, tmp_path: Path):
    bad = broken_files(demo, tmp_path)
    dataset = replace(few(demo), samples=tuple(Sample(path.stem, path, frozenset()) for path in bad[1:3]))
    with pytest.raises(BoxlessError, match=r"no image can be read; the first: .*(copy\.jpg|empty\.png)"):
        cache_dataset(dataset, make_store(), VIEWS, PROPOSALS)


def test_an_empty_set_is_an_error(demo: Path):
    with pytest.raises(BoxlessError, match="no image can be read"):
        cache_dataset(replace(few(demo), samples=()), make_store(), VIEWS, PROPOSALS)


def test_caches_do_not_depend_on_boxes(demo: Path, cache: Path):
    first = cache_dataset(few(demo), make_store(), VIEWS, PROPOSALS)
    files = {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy.zst")}
    assert len(files) == 9
    second = cache_dataset(few(demo).tags_only(), make_store(), VIEWS, PROPOSALS)
    assert (first.keys, first.sizes) == (second.keys, second.sizes)
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy.zst")} == files


def test_subsets_boxes_and_joined_sets_read_the_same_caches(demo: Path):
    data = cache_dataset(few(demo), make_store(), VIEWS, PROPOSALS)
    last = data.subset([2, 0])
    assert ids(last) == [ids(data)[2], ids(data)[0]] and len(last) == 2
    assert torch.equal(last.map(0, VIEWS[1]), data.map(2, VIEWS[1]))
    assert last.proposals_of(1).tolist() == data.proposals_of(0).tolist() and last.sizes == (
        data.sizes[2],
        data.sizes[0],
    )
    boxes = [Annotations(np.full((1, 4), row, np.float32), np.array([row]), np.array([False])) for row in range(2)]
    with_boxes = last.with_boxes(boxes)
    assert [sample.annotations for sample in with_boxes.dataset.samples] == boxes
    bare = with_boxes.tags_only()
    assert (
        not bare.dataset.has_boxes
        and bare.proposals is None
        and torch.equal(bare.map(0, VIEWS[0]), last.map(0, VIEWS[0]))
    )
    joined = last.joined(data.subset([1]))
    assert ids(joined) == [*ids(last), ids(data)[1]] and joined.keys == (*last.keys, data.keys[1])
    assert joined.proposals_of(2).tolist() == data.proposals_of(1).tolist()
