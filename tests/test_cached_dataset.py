import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from boxless.backbones import Backbone
from boxless.cached_dataset import CachedDataset, prepare
from boxless.config import BackboneConfig, ProposalConfig
from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.features import FeatureStore, View
from boxless.images import content_key, image_size, read_image
from boxless.proposals import propose
from boxless.structures import Dataset, Sample

VIEWS = (View(64), View(64, True))
PROPOSALS = ProposalConfig(generator="grid", min_area=0.2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, empty."""
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


def ids(prepared: CachedDataset) -> list[str]:
    return [sample.id for sample in prepared.dataset.samples]


def test_everything_is_computed_and_found_by_key(demo: Path):
    dataset = few(demo)
    ready = prepare(dataset, make_store(), VIEWS, PROPOSALS)
    assert ready.dataset == dataset
    assert ready.skipped == {}
    assert ready.seconds.keys() == {"proposals", "features"}
    assert ready.proposals is not None
    for sample, key, size in zip(dataset.samples, ready.keys, ready.sizes, strict=True):
        assert key == content_key(sample.path)
        assert size == image_size(sample.path)
        image = read_image(sample.path)
        assert ready.proposals.load(key).tolist() == propose(image, PROPOSALS).tolist()
        for view in VIEWS:
            assert torch.equal(ready.features.load(key, sample.path, view), ready.features.extract(image, view))


def test_methods_without_proposals_have_none(demo: Path, cache: Path):
    ready = prepare(few(demo), make_store(), VIEWS, None)
    assert ready.proposals is None
    assert ready.seconds.keys() == {"features"}
    assert not (cache / "proposals").exists()


@pytest.mark.parametrize("freeze", ["all", "none"])
@pytest.mark.parametrize("proposals", [PROPOSALS, None], ids=["proposals", "none"])
def test_what_cannot_be_read_is_left_out_and_reported(
    demo: Path, tmp_path: Path, proposals: ProposalConfig | None, freeze: str, capsys: pytest.CaptureFixture[str]
):
    bad = broken_files(demo, tmp_path)
    ready = prepare(few(demo, *bad), make_store(freeze), VIEWS, proposals)
    good = load_dataset(demo, "train").samples[:3]
    assert ids(ready) == [sample.id for sample in good]
    assert ready.keys == tuple(content_key(sample.path) for sample in good)
    assert ready.sizes == tuple(image_size(sample.path) for sample in good)
    # None is lost on the way: each is either kept or named with a reason, copies too.
    assert ready.skipped.keys() == set(bad)
    assert "there is no such file" in ready.skipped[bad[3]] or "No such file" in ready.skipped[bad[3]]
    said = capsys.readouterr().err
    assert "4 image(s) skipped" in said
    # The classes and all else of the set stay.
    assert ready.dataset.classes == load_dataset(demo, "train").classes


def test_copies_of_a_good_image_are_both_kept(demo: Path, tmp_path: Path):
    copy = tmp_path / "copy.jpg"
    shutil.copy(load_dataset(demo, "train").samples[1].path, copy)
    ready = prepare(few(demo, copy), make_store(), VIEWS, PROPOSALS)
    assert ids(ready)[0] == "copy"
    assert len(ready.keys) == 4
    assert len(set(ready.keys)) == 3
    assert ready.keys[0] == ready.keys[2]


def test_a_set_of_broken_images_is_an_error_that_says_why(demo: Path, tmp_path: Path):
    bad = broken_files(demo, tmp_path)
    dataset = replace(few(demo), samples=tuple(Sample(path.stem, path, frozenset()) for path in bad[1:3]))
    with pytest.raises(BoxlessError, match=r"no image can be read; the first: .*(copy\.jpg|empty\.png)"):
        prepare(dataset, make_store(), VIEWS, PROPOSALS)


def test_an_empty_set_is_an_error(demo: Path):
    with pytest.raises(BoxlessError, match="no image can be read"):
        prepare(replace(few(demo), samples=()), make_store(), VIEWS, PROPOSALS)


def test_boxes_are_not_looked_at(demo: Path, cache: Path):
    first = prepare(few(demo), make_store(), VIEWS, PROPOSALS)
    files = {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy")}
    assert len(files) == 9
    second = prepare(few(demo).tags_only(), make_store(), VIEWS, PROPOSALS)
    assert (first.keys, first.sizes) == (second.keys, second.sizes)
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy")} == files
