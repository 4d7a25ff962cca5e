"""Detection in videos: frames in order, with their times, in little memory; the detector is a stub."""

import csv
import json
import re
import resource
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from boxless import video as module
from boxless.commands.predict import predict as command
from boxless.errors import BoxlessError
from boxless.structures import Detections
from boxless.video import predict_video, read_frames

SIZE = (64, 48)


def write(path: Path, frames: int = 7, rate: float = 10) -> Path:
    """A video whose frame i is grey of 30 i, red in its right half."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, SIZE)
    for number in range(frames):
        pixels = np.full((SIZE[1], SIZE[0], 3), 30 * number, np.uint8)
        pixels[:, 32:] = (0, 0, 220)
        writer.write(pixels)
    writer.release()
    return path


class Stub:
    """Finds a cat in every frame, whose score is its grey; and counts the frames that it is given at once."""

    classes = ("dog", "cat")
    name = "stub"

    def __init__(self) -> None:
        self.given: list[int] = []

    def predict(self, images: list[Any], threshold: float | None, progress: bool) -> list[Detections]:
        assert not progress
        self.given.append(len(images))
        return [self._found(image, threshold or 0) for image in images]

    def _found(self, image: Any, threshold: float) -> Detections:
        grey = round(float(image[:, :24].mean()) / 30)
        found = Detections(
            np.array([[1, 2, 11 + grey, 22]], np.float32),
            np.array([grey / 10], np.float32),
            np.ones(1, np.int64),
            self.classes,
            SIZE,
            np.ones(2, np.float32),
        )
        return found.above(threshold)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.mp4")


def test_frames_have_numbers_times_and_colours_in_order(clip: Path) -> None:
    frames = list(read_frames(clip))
    assert [frame.number for frame in frames] == list(range(7))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(7) / 10, atol=1e-6)
    for frame in frames:
        assert frame.pixels.shape == (48, 64, 3) and frame.pixels.dtype == np.uint8
        np.testing.assert_allclose(frame.pixels[:, :24].mean(axis=(0, 1)), [30 * frame.number] * 3, atol=6)
        # RGB, which OpenCV turns around.
        np.testing.assert_allclose(frame.pixels[:, 40:].mean(axis=(0, 1)), [220, 0, 0], atol=12)


def test_boxes_of_every_frame_as_coco(clip: Path, tmp_path: Path) -> None:
    assert predict_video(Stub(), clip, tmp_path / "out") == 7
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert [(one["id"], one["frame"], one["time"]) for one in content["images"]] == [
        (number + 1, number, pytest.approx(number / 10)) for number in range(7)
    ]
    assert {(one["file_name"], one["width"], one["height"]) for one in content["images"]} == {(clip.as_posix(), 64, 48)}
    assert [one["image_id"] for one in content["annotations"]] == list(range(1, 8))
    third = content["annotations"][2]
    assert (third["category_id"], third["bbox"], third["score"]) == (2, [1, 2, 12, 20], pytest.approx(0.2))


def test_boxes_of_every_frame_as_csv_from_a_score_on(clip: Path, tmp_path: Path) -> None:
    predict_video(Stub(), clip, tmp_path / "out", "csv", 0.45)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["time"], row["class"], row["score"]) for row in rows] == [
        ("5", "0.5", "cat", "0.5"),
        ("6", "0.6", "cat", "0.6"),
    ]
    assert [float(rows[1][key]) for key in ("xmin", "ymin", "xmax", "ymax")] == [1, 2, 17, 22]


def test_the_video_with_boxes_has_all_frames_and_its_rate(clip: Path, tmp_path: Path) -> None:
    predict_video(Stub(), clip, tmp_path / "out", "csv")
    drawn = list(read_frames(tmp_path / "out" / "overlay.mp4"))
    assert [frame.number for frame in drawn] == list(range(7))
    assert drawn[-1].seconds == pytest.approx(0.6) and drawn[0].pixels.shape == (48, 64, 3)
    plain = list(read_frames(clip))
    assert np.abs(drawn[3].pixels[:24, :16].astype(int) - plain[3].pixels[:24, :16]).mean() > 5
    assert {file.name for file in (tmp_path / "out").iterdir()} == {".boxless.json", "overlay.mp4", "predictions.csv"}


@pytest.mark.parametrize("rate", [0.5, 29.97, 118.347, 300.123, 480])
def test_slow_and_fast_videos_keep_their_rate(rate: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), rate, SIZE)
    for _ in range(5):
        writer.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    writer.release()
    predict_video(Stub(), clip, tmp_path / "out")
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate, rel=1e-3)
    assert not caplog.records


def test_a_video_is_not_overwritten_by_its_own_boxes(clip: Path, tmp_path: Path) -> None:
    own = clip.rename(tmp_path / "overlay.mp4")
    before = own.read_bytes()
    with pytest.raises(BoxlessError, match=r"overlay\.mp4: would be overwritten; choose another --out"):
        predict_video(Stub(), own, tmp_path)
    assert own.read_bytes() == before


@pytest.mark.parametrize("name", ["overlay.mp4", "predictions.json"])
def test_files_that_are_no_results_are_not_overwritten(name: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(BoxlessError, match=f"{name}: exists, and is no result of Boxless"):
        predict_video(Stub(), clip, out)
    assert (out / name).read_text() == "mine"
    # Its own results are.
    for _ in range(2):
        predict_video(Stub(), clip, tmp_path / "own")


def test_a_full_disk_leaves_the_earlier_video(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, SIZE[1], SIZE[0], 3), np.uint8)
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE)
    for pixels in noise:
        writer.write(pixels)
    writer.release()
    predict_video(Stub(), clip, tmp_path / "out", "csv")
    before = (tmp_path / "out" / "overlay.mp4").read_bytes()
    # OpenCV reports no failed write, as it would on a full disk.
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(BoxlessError, match=r"overlay.mp4: cannot be written whole; the disk may be full"):
            predict_video(Stub(), clip, tmp_path / "out", "csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "out" / "overlay.mp4").read_bytes() == before


def test_a_video_that_is_cut_off_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, half = tmp_path / "whole.avi", tmp_path / "half.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE)
    for _ in range(60):
        writer.write(np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))
    writer.release()
    assert predict_video(Stub(), whole, tmp_path / "out") == 60  # type: ignore[arg-type]
    assert not caplog.records
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 10 < predict_video(Stub(), half, tmp_path / "out") < 50  # type: ignore[arg-type]
    assert "half.avi: ends after 2." in caplog.text and "of 6.0 seconds, cut off or damaged" in caplog.text


def test_few_frames_are_in_memory(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    stub = Stub()
    predict_video(stub, clip, tmp_path / "out")
    assert stub.given == [3, 3, 1]


def cut(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.mp4", lambda path: None, "gone.mp4: does not exist$"),
        ("folder.mp4", lambda path: path.mkdir(), "folder.mp4: is no file$"),
        ("empty.mp4", lambda path: path.touch(), "empty.mp4: the file is empty$"),
        ("text.mp4", lambda path: path.write_text("no video" * 99), r"text.mp4: cannot be read as a video; convert it"),
        ("cut.mp4", cut, r"cut.mp4: cannot be read as a video; convert it \(ffmpeg -i cut.mp4 new.mp4\)$"),
        ("none.mp4", lambda path: write(path, 0), "none.mp4: (has no frame|cannot be read as a video)"),
    ],
)
def test_what_is_no_video_is_one_line_and_writes_nothing(name: str, make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(BoxlessError, match=message):
        predict_video(Stub(), tmp_path / name, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_frames_of_several_sizes_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(48, 64, 3), (48, 64, 3), (64, 48, 3)]
    capture = SimpleNamespace(
        read=lambda: (True, np.zeros(shapes.pop(0), np.uint8)),
        get=lambda key: 0.0,
        isOpened=lambda: True,
        release=lambda: None,
    )
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: capture)
    with pytest.raises(BoxlessError, match=r"clip.mp4: frame 2 has another size; convert it \(ffmpeg -i clip.mp4"):
        list(read_frames(clip))


def test_other_formats_are_refused_before_the_work(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(BoxlessError, match="--format voc: of a video boxes are written as coco or csv"):
        predict_video(Stub(), clip, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BoxlessError, match=r"file.*cannot be written"):
        predict_video(Stub(), clip, tmp_path / "file" / "out")


def test_an_error_on_the_way_leaves_no_half_file(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    stub, predict = Stub(), Stub.predict

    def fails(self: Stub, images: list[Any], threshold: float | None, progress: bool) -> list[Detections]:
        if self.given:
            raise BoxlessError("enough")
        return predict(self, images, threshold, progress)

    monkeypatch.setattr(Stub, "predict", fails)
    with pytest.raises(BoxlessError, match="enough"):
        predict_video(stub, clip, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_command_takes_one_video(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxless.loading.load_predictor", lambda run: Stub())
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")
    command(Path("run"), [str(clip)], str(tmp_path / "out"), "csv", 0.55)
    assert (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:] == [
        f"{clip.as_posix()},6,0.6,cat,0.6,1.0,2.0,17.0,22.0"
    ]
    with pytest.raises(BoxlessError, match=r"clip\.mp4: a video is given alone, without other videos or images"):
        command(Path("run"), [str(clip), "photos"], str(tmp_path / "other"))
    with pytest.raises(
        BoxlessError, match="--out s3://bucket/found: only the parts of a manifest are written to a URI"
    ):
        command(Path("run"), ["photos"], "s3://bucket/found")
    with pytest.raises(BoxlessError, match="--format yolo"):
        command(Path("run"), [str(clip)], str(tmp_path / "other"), "yolo")
    assert not (tmp_path / "other").exists()


def test_objects_are_tracked_by_the_recipe_of_the_documentation(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackers")
    text = (Path(__file__).parent.parent / "docs" / "handing_on.md").read_text(encoding="utf-8")
    (recipe,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "ByteTrackTracker" in block)

    def sure(pixels: Any) -> Detections:
        (found,) = Stub().predict([pixels], 0, progress=False)
        return replace(found, scores=np.full(1, 0.9, np.float32))

    detector = SimpleNamespace(predict=sure, classes=Stub.classes)
    monkeypatch.setattr("boxless.Detector", SimpleNamespace(load=lambda run: detector))
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    rows = [line.split(maxsplit=4) for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[3]) for row in rows] == [(str(number), "cat") for number in range(7)]
    # One object, followed from the second or third frame on.
    assert len({row[2] for row in rows[3:]}) == 1 and int(rows[3][2]) >= 0
