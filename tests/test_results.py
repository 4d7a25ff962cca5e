"""Which images `predict` and `heatmap` take, and what they write; the detector is a stub."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from boxless.datasets import load_dataset
from boxless.errors import BoxlessError, ImageError
from boxless.images import read_image
from boxless.result_record import record_results
from boxless.results import heatmaps, predict
from boxless.structures import Detections, Heatmaps


class Stub:
    """Finds one box in every image that can be read."""

    classes = ("cat",)
    name = "stub"
    untrusted: ClassVar[dict[str, float]] = {}

    def predict_files(self, files, skipped):
        for path in files:
            try:
                pixels = read_image(path)
            except ImageError as error:
                skipped[path] = str(error)
                continue
            size = (pixels.shape[1], pixels.shape[0])
            values = np.array([[1, 2, 9, 8]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
            yield path, pixels, Detections(*values, self.classes, size, np.ones(1, np.float32))

    def heatmap_files(self, files, skipped):
        for path, pixels, found in self.predict_files(files, skipped):
            yield path, pixels, found, Heatmaps(np.ones((1, 2, 2), np.float32), self.classes, found.size)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("one/a.jpg", "one/b.png", "two/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 24), "red").save(tmp_path / name)
    return tmp_path


def run(images, out: Path, **more) -> tuple[list[str], dict[Path, str]]:
    skipped = predict(Stub(), images, out, "coco", **more)
    content = json.loads((Path(out).expanduser() / "predictions.json").read_text())
    return [Path(image["file_name"]).name for image in content["images"]], skipped


def test_several_images_folders_and_patterns_each_image_once(photos: Path):
    given = [photos / "two", str(photos / "one" / "*.png"), photos / "one" / "b.png", photos / "**" / "a.jpg"]
    assert run(given, photos / "out") == (["c.jpg", "b.png", "a.jpg"], {})


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(photos: Path):
    (photos / "one" / "a.jpg").rename(photos / "one" / "[b].jpg")
    assert run(photos / "one" / "[b].jpg", photos / "out")[0] == ["[b].jpg"]


def test_home_is_the_users(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(photos))
    assert run("~/two", "~/out")[0] == ["c.jpg"]
    assert (photos / "out" / "overview.jpg").is_file()


def test_images_in_formats_that_are_not_read_are_given_with_the_reason(photos: Path):
    (photos / "one" / "c.nef").touch()
    (photos / "one" / "d.jpg").write_text("no image")
    (photos / "one" / "e.MP4").touch()
    # Of an earlier call.
    (photos / "one" / "overlay.mp4").touch()
    record_results(photos / "one", ["overlay.mp4"])
    names, skipped = run(photos / "one", photos / "out")
    assert names == ["a.jpg", "b.png"]
    assert [(file.name, reason.partition(": ")[2]) for file, reason in skipped.items()] == [
        ("c.nef", "a raw file of a camera, which is not read; convert it to JPEG or PNG"),
        ("e.MP4", "a video; give it alone to boxless predict"),
        ("d.jpg", "not an image; replace it"),
    ]


@pytest.mark.parametrize("write", [lambda *given: predict(*given, "coco"), heatmaps])
def test_nothing_that_can_be_read_is_an_error_and_writes_nothing(photos: Path, write):
    for name in ("one/a.jpg", "one/b.png"):
        (photos / name).write_text("")
    with pytest.raises(BoxlessError, match=r"none of the 2 images can be read; the first: .*a\.jpg: the file is empty"):
        write(Stub(), photos / "one", photos / "out")
    assert not list(photos.glob("out/**/*.*"))


def test_images_that_no_jpeg_can_hold_are_drawn_smaller(photos: Path):
    Image.new("RGB", (66_000, 16), "red").save(photos / "one" / "long.png")
    assert run([photos / "one"], photos / "out") == (["a.jpg", "b.png", "long.png"], {})
    # The overview of it alone is higher still.
    Image.new("RGB", (16, 1000), "red").save(photos / "two" / "high.png")
    assert run([photos / "two" / "high.png"], photos / "high") == (["high.png"], {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gone", "gone: does not exist"),
        ("*.gif", r"\*\.gif: matches nothing"),
        ("raw", r"raw: there is no image that is read; the first left out: .*a\.nef: a raw file of a camera"),
        ("empty", "empty: there is no image$"),
    ],
)
def test_no_image_at_all_is_an_error(photos: Path, given: str, message: str):
    (photos / "empty").mkdir()
    (photos / "raw").mkdir()
    (photos / "raw" / "a.nef").touch()
    with pytest.raises(BoxlessError, match=message):
        predict(Stub(), [photos / given], photos / "out", "coco")


def test_results_of_an_earlier_call_are_no_images(photos: Path):
    for _ in range(2):
        assert run(photos, photos)[0] == ["a.jpg", "b.png", "c.jpg"]
    assert run(photos / "*", photos / "out")[0] == ["a.jpg", "b.png", "c.jpg"]


@pytest.mark.parametrize(
    ("format", "own"),
    [
        ("yolo", "labels/a.txt"),
        ("yolo", "data.yaml"),
        ("voc", "Annotations/a.xml"),
        ("coco", "predictions.json"),
        ("csv", "predictions.csv"),
        ("label-studio", "tasks.json"),
        ("coco", "overview.jpg"),
    ],
)
def test_files_that_are_no_results_are_not_overwritten(format: str, own: str, photos: Path):
    file = photos / own
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(BoxlessError, match=f"{Path(own).parts[0]}: exists, and is no result of Boxless"):
        predict(Stub(), photos / "one", photos, format)
    assert file.read_text() == "mine" and not (photos / "overlays").exists()
    # Its own results are, but not files of the user beside them.
    for _ in range(2):
        predict(Stub(), photos / "one", photos / "out", format)
    (photos / "out" / "maps").mkdir()
    with pytest.raises(BoxlessError, match="maps: exists, and is no result of Boxless"):
        heatmaps(Stub(), photos / "one", photos / "out")


def test_maps_that_are_no_results_are_not_overwritten(photos: Path):
    (photos / "maps").mkdir()
    with pytest.raises(BoxlessError, match="maps: exists, and is no result of Boxless"):
        heatmaps(Stub(), photos / "one", photos)


def test_results_of_an_earlier_call_elsewhere_are_no_images(photos: Path):
    run(photos, photos / "first")
    assert run(photos, photos / "second") == (["a.jpg", "b.png", "c.jpg"], {})
    # Unless one is asked for.
    assert run(photos / "first" / "overlays" / "a.jpg", photos / "third") == (["a.jpg"], {})


def test_predictions_among_class_folders_are_no_annotations(photos: Path):
    before = load_dataset(photos)
    run(photos / "one", photos)
    after = load_dataset(photos)
    assert (after.classes, [sample.tags for sample in after.samples]) == (("one", "two"), [{0}, {0}, {1}])
    assert [sample.path for sample in after.samples] == [sample.path for sample in before.samples]
