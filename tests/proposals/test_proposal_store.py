import hashlib
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from torn_writes import torn

from boxless.config import ProposalConfig
from boxless.datasets import load_dataset
from boxless.errors import BoxlessError
from boxless.images import content_keys, read_image, write_image
from boxless.proposals import GENERATORS, propose, store
from boxless.proposals.store import ProposalStore
from boxless.structures import FloatArray

CONFIG = ProposalConfig(size=96)


@pytest.fixture
def images(demo: Path) -> dict[str, Path]:
    """Content key -> file of four images."""
    return keyed(sample.path for sample in load_dataset(demo, "train").samples[:4])


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.uint8]]:
    """Receives every image whose proposals are computed."""
    done: list[NDArray[np.uint8]] = []
    generate: Callable[..., FloatArray] = store.generate

    def recorded(image: NDArray[np.uint8], config: ProposalConfig) -> FloatArray:
        done.append(image)
        return generate(image, config)

    monkeypatch.setattr(store, "generate", recorded)
    return done


def keyed(paths: object) -> dict[str, Path]:
    skipped: dict[Path, str] = {}
    keys = content_keys(paths, skipped)  # type: ignore[arg-type]
    assert not skipped
    return {key: path for path, key in keys.items()}


def test_cached_proposals_equal_those_of_propose(images: dict[str, Path], cache: Path):
    proposals = ProposalStore(CONFIG)
    assert proposals.compute(images) == {}
    for key, path in images.items():
        stored = proposals.load(key)
        assert stored.dtype == np.float32
        assert stored.tobytes() == propose(read_image(path), CONFIG).tobytes()


def test_a_second_call_computes_nothing(images: dict[str, Path], cache: Path, work: list[NDArray[np.uint8]]):
    ProposalStore(CONFIG).compute(images)
    assert len(work) == 4
    written = {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy.zst")}
    ProposalStore(CONFIG).compute(images)
    assert len(work) == 4
    assert {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy.zst")} == written


def test_an_interrupted_call_is_resumed(
    images: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch, work: list[NDArray[np.uint8]]
):
    original = store.generate

    def interrupted(image: NDArray[np.uint8], config: ProposalConfig) -> FloatArray:
        if len(work) >= 2:
            raise KeyboardInterrupt
        return original(image, config)

    # One thread, so that the number of computed images is known.
    monkeypatch.setattr("boxless.parallel.cores", lambda: 1)
    monkeypatch.setattr(store, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ProposalStore(CONFIG).compute(images)
    assert len(list(cache.rglob("*.npy.zst"))) == 2
    monkeypatch.setattr(store, "generate", original)
    ProposalStore(CONFIG).compute(images)
    assert len(work) == 4
    for key, path in images.items():
        assert ProposalStore(CONFIG).load(key).tobytes() == propose(read_image(path), CONFIG).tobytes()


def test_partly_written_entries_are_not_used(images: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("boxless.cache.write_whole", torn)
        with pytest.raises(KeyboardInterrupt):
            ProposalStore(CONFIG).compute(images)
    found = {file.name for file in cache.rglob("*") if file.is_file() and file.parent.name != "used"}
    assert found == {"settings.json"}
    key = next(iter(images))
    with pytest.raises(BoxlessError, match=key):
        ProposalStore(CONFIG).load(key)
    assert ProposalStore(CONFIG).compute(images) == {}
    assert len(ProposalStore(CONFIG).load(key)) > 1


def test_damaged_entries_are_computed_anew(images: dict[str, Path], cache: Path, work: list[NDArray[np.uint8]]):
    ProposalStore(CONFIG).compute(images)
    whole = {file: file.read_bytes() for file in cache.rglob("*.npy.zst")}
    damaged = next(iter(whole))
    damaged.write_bytes(whole[damaged][:-20] + b"\0" + whole[damaged][-19:])
    ProposalStore(CONFIG).compute(images)
    assert len(work) == 4 + 1
    assert {file: file.read_bytes() for file in cache.rglob("*.npy.zst")} == whole


def test_broken_images_are_reported_and_the_others_computed(images: dict[str, Path], cache: Path, tmp_path: Path):
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes(next(iter(images.values())).read_bytes()[:500])
    empty.write_bytes(b"")
    proposals = ProposalStore(CONFIG)
    skipped = proposals.compute(keyed([broken]) | images | keyed([empty]))
    assert skipped.keys() == {broken, empty}
    for path, reason in skipped.items():
        assert str(path) in reason
    assert all(len(proposals.load(key)) for key in images)


def test_a_copy_under_another_name_shares_the_entry(
    images: dict[str, Path], cache: Path, tmp_path: Path, work: list[NDArray[np.uint8]]
):
    ProposalStore(CONFIG).compute(images)
    key, original = next(iter(images.items()))
    copy = tmp_path / "elsewhere" / "other.jpg"
    copy.parent.mkdir()
    shutil.copy(original, copy)
    assert keyed([copy]) == {key: copy}
    ProposalStore(CONFIG).compute({key: copy})
    assert len(work) == 4
    # The path of a cached image with other content is computed again.
    write_image(copy, np.full((40, 40, 3), 9, np.uint8))
    ProposalStore(CONFIG).compute(keyed([copy]))
    assert len(work) == 5


@pytest.mark.parametrize("other", [{"size": 64}, {"generator": "grid"}])
def test_another_generator_or_setting_has_its_own_entries(
    images: dict[str, Path], cache: Path, work: list[NDArray[np.uint8]], other: dict[str, object]
):
    ProposalStore(CONFIG).compute(images)
    config = CONFIG.model_copy(update=other)
    ProposalStore(config).compute(images)
    assert len(work) == 8
    assert len(list(cache.rglob("settings.json"))) == 2
    for key, path in images.items():
        assert ProposalStore(CONFIG).load(key).tobytes() == propose(read_image(path), CONFIG).tobytes()
        assert ProposalStore(config).load(key).tobytes() == propose(read_image(path), config).tobytes()


@pytest.mark.parametrize(("generator", "again"), [("grouping", 4), ("grid", 0)])
def test_boxes_of_an_older_revision_are_not_used(
    images: dict[str, Path],
    cache: Path,
    work: list[NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
    generator: str,
    again: int,
):
    config = CONFIG.model_copy(update={"generator": generator})
    ProposalStore(config).compute(images)
    monkeypatch.setattr("boxless.proposals.store.REVISION", 0)
    ProposalStore(config).compute(images)
    assert len(work) == 4 + again


def test_another_filter_computes_nothing(images: dict[str, Path], cache: Path, work: list[NDArray[np.uint8]]):
    ProposalStore(CONFIG).compute(images)
    strict = CONFIG.model_copy(update={"min_side": 60, "min_area": 0.1})
    ProposalStore(strict).compute(images)
    assert len(work) == 4
    for key, path in images.items():
        few = ProposalStore(strict).load(key)
        assert few.tobytes() == propose(read_image(path), strict).tobytes()
        assert 0 < len(few) < len(ProposalStore(CONFIG).load(key))


def test_the_cache_key_is_stable(cache: Path):
    ProposalStore(ProposalConfig(size=300))
    settings = {"generator": "grouping", "size": 300, "mode": "fast", "opencv": cv2.__version__, "grouping": 2}
    folder = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    assert json.loads((cache / "proposals" / folder / "settings.json").read_text()) == settings


def test_a_changed_generator_from_outside_is_computed_again(
    images: dict[str, Path], cache: Path, work: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    config = CONFIG.model_copy(update={"generator": "halves"})
    source = "import numpy\ndef halves(image, size):\n    return numpy.array([[0, 0, {}, 50]], numpy.float32)\n"
    for text, expected in ((source.format(40), 4), (source.format(40), 4), (source.format(60), 8)):
        (tmp_path / "halves.py").write_text(text)
        names = runpy.run_path(str(tmp_path / "halves.py"))
        monkeypatch.setitem(GENERATORS, "halves", names["halves"])
        ProposalStore(config).compute(images)
        assert len(work) == expected
    assert [0, 0, 60, 50] in ProposalStore(config).load(next(iter(images))).tolist()
    # The file of a function typed into an interpreter is unknown.
    for _ in range(2):
        monkeypatch.setitem(GENERATORS, "halves", eval("lambda image, size: numpy.ones((0, 4))", {"numpy": np}))
        ProposalStore(config).compute(images)
        assert ProposalStore(config).load(next(iter(images))).shape == (1, 4)
    assert len(work) == 16
