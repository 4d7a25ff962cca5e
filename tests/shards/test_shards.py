import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import boxless
from drawn_detector import CLASSES, write_detector
from pyarrow import parquet

from boxless.errors import BoxlessError, ImageError
from boxless.export import FORMATS
from boxless.images import read_image
from boxless.runtime import Runtime
from boxless.shards import export_parts, local, predict_manifest, read_parts, storage, write_manifest
from boxless.shards.job import Job, begin_job, part_name, plan
from boxless.shards.manifest import read_rows
from boxless.shards.ray_data import ShardActor
from boxless.shards.work import Outcome, load_detector, predict_shard
from boxless.share import parse_share
from boxless.structures import Detections

UNREAD = {"a/cut.jpg", "b/empty.jpg", "b/thin.png"}


def work_on(job: Job) -> list[Outcome]:
    """All shards that are to be done, in this process."""
    detector = load_detector(job)
    return [predict_shard(job, shard, detector, threads=1) for shard in plan(job, (1, 1))[0]]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def parts(detector: str, manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all images, in shards of five."""
    out = tmp_path_factory.mktemp("parts")
    outcomes = work_on(begin_job(detector, manifest, str(out), 5, None))
    assert [outcome.failure for outcome in outcomes] == [None] * 5
    assert (sum(outcome.images for outcome in outcomes), sum(outcome.unread for outcome in outcomes)) == (21, 3)
    return out


def test_parts_hold_what_the_detector_predicts(parts: Path, photos: Path, detector: str):
    runtime, found = Runtime(detector), list(read_parts(parts))
    assert [image.id for image in found] == sorted(
        file.relative_to(photos).as_posix() for file in photos.rglob("*.*") if file.is_file()
    )
    boxes = 0
    for image in found:
        path = photos / image.id
        assert image.uri == str(path)
        if image.id in UNREAD:
            with pytest.raises(ImageError) as raised:
                read_image(path)
            assert (image.detections, image.error) == (None, str(raised.value))
            continue
        expected = runtime.predict(path)
        assert image.error is None and image.detections is not None
        for name in ("boxes", "scores", "labels", "image_scores"):
            own = getattr(image.detections, name)
            assert own.dtype == getattr(expected, name).dtype
            np.testing.assert_array_equal(own, getattr(expected, name))
        assert (image.detections.classes, image.detections.size) == (CLASSES, expected.size)
        boxes += len(expected)
    assert boxes > 18


def test_a_part_is_a_table_that_other_programs_read(parts: Path):
    table = parquet.read_table(parts / part_name(0))
    assert table.num_rows == 5
    row = table.to_pylist()[0]
    assert (row["id"], row["width"], row["height"], row["error"], row["raw_scores"]) == ("a/00.jpg", 80, 64, None, None)
    assert len(row["boxes"]) == len(row["scores"]) == len(row["names"]) > 0
    assert set(row["names"]) <= set(CLASSES) and len(row["image_scores"]) == 3
    assert all(0 <= x1 < x2 <= 80 and 0 <= y1 < y2 <= 64 for x1, y1, x2, y2 in row["boxes"])


def test_scores_before_calibration_are_kept(detector: str, manifest: str, tmp_path: Path):
    job, runtime = begin_job(detector, manifest, str(tmp_path), 5, 0.0), Runtime(detector)

    class Calibration:
        def apply(self, found: Detections) -> Detections:
            return replace(found, scores=found.scores / 2, raw_scores=found.scores)

    runtime.calibration = Calibration()  # type: ignore[assignment]
    for shard in range(job.shards):
        predict_shard(job, shard, runtime, 1)
    found = [image.detections for image in read_parts(tmp_path) if image.detections is not None]
    assert len(found) == 18
    assert all(np.array_equal(own.scores * 2, own.raw_scores) for own in found if own.raw_scores is not None)
    assert all(own.raw_scores is not None for own in found)


@pytest.mark.parametrize(("threshold", "keep"), [(0.0, lambda own: own), (0.6, lambda own: own.above(0.6))])
def test_a_threshold_keeps_boxes_as_predict_does(
    detector: str, manifest: str, photos: Path, tmp_path: Path, threshold: float, keep
):
    work_on(begin_job(detector, manifest, str(tmp_path), 30, threshold))
    runtime = Runtime(detector)
    counts = {image.id: len(image.detections) for image in read_parts(tmp_path) if image.detections is not None}
    assert counts == {id: len(keep(runtime.predict(photos / id, 0))) for id in counts}


def test_what_is_there_is_left_alone(parts: Path, detector: str, manifest: str, tmp_path: Path):
    job = begin_job(detector, manifest, str(tmp_path), 5, None)
    for shard in (1, 4):
        (tmp_path / part_name(shard)).write_bytes((parts / part_name(shard)).read_bytes())
        os.utime(tmp_path / part_name(shard), ns=(1, 1))
    assert plan(job, (1, 1)) == ([0, 2, 3], [1, 4])
    assert predict_shard(job, 1, load_detector(job), 1) == Outcome(1)
    assert [outcome.images for outcome in work_on(job)] == [5, 5, 5]
    assert contents(tmp_path) == contents(parts)
    assert [(tmp_path / part_name(shard)).stat().st_mtime_ns for shard in (1, 4)] == [1, 1]
    assert work_on(job) == []


def test_processes_end_in_the_same_bytes(
    parts: Path, detector: str, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    words = [detector, manifest, "--out", tmp_path / "out", "--shard-size", 5]
    assert boxless(monkeypatch, "predict", *words) == 0
    assert contents(tmp_path / "out") == contents(parts)
    printed = " ".join(capsys.readouterr().err.split())
    assert "Warning: 3 images cannot be read" in printed and "5 parts of 21 images:" in printed
    assert boxless(monkeypatch, "predict", *words) == 0
    assert "All parts were there before (5)" in " ".join(capsys.readouterr().err.split())


def test_shards_are_shared_by_number(parts: Path, detector: str, manifest: str, tmp_path: Path):
    job = begin_job(detector, manifest, str(tmp_path), 5, None)
    shares = [plan(job, (number, 3))[0] for number in (1, 2, 3)]
    assert shares == [[0, 3], [1, 4], [2]]
    actor = ShardActor(job, 1)
    for shard in shares[1] + shares[2] + shares[0]:
        outcome = json.loads(actor({"shard": shard})["outcome"])
        assert outcome["failure"] is None and outcome["images"] == (1 if shard == 4 else 5)
    assert contents(tmp_path) == contents(parts)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/3", "-1/3", "1/ 3", ""])
def test_shares_of_other_forms_are_refused(text: str):
    with pytest.raises(BoxlessError, match="form i/n"):
        parse_share(text)
    assert parse_share(None) == (1, 1) and parse_share("3/8") == (3, 8)


def test_parts_of_something_else_are_not_mixed(
    parts: Path, detector: str, manifest: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.shards.predict.run_local", lambda *_: pytest.fail("the work has begun"))
    other = str(write_detector(tmp_path / "other.onnx", least=0.2))
    write_manifest(str(photos / "a"), str(tmp_path / "a.parquet"))
    before = contents(parts)
    for run, images, options, message in (
        (other, manifest, {}, "parts of another detector"),
        (detector, str(tmp_path / "a.parquet"), {}, "parts of another manifest"),
        (detector, manifest, {"shard_size": 6}, "parts of shard_size 5, not 6"),
        (detector, manifest, {"threshold": 0.5}, "parts of threshold None, not 0.5"),
        (detector, manifest, {"shards": "9/8"}, "--shards 9/8"),
        (detector, manifest, {"engine": "spark"}, "--engine spark: there are local and ray"),
        (detector, manifest, {"shard_size": 0}, "--shard-size 0"),
        (detector, str(tmp_path / "none.parquet"), {}, "none.parquet: cannot be read"),
        (str(tmp_path / "none.onnx"), manifest, {}, "none.onnx: there is no such file"),
    ):
        with pytest.raises(BoxlessError, match=message):
            predict_manifest(run, images, str(parts), **{"shard_size": 5} | options)
    assert contents(parts) == before


def test_a_copy_of_the_detector_elsewhere_is_the_same(parts: Path, detector: str, manifest: str, tmp_path: Path):
    copy = tmp_path / "moved.onnx"
    copy.write_bytes(Path(detector).read_bytes())
    assert plan(begin_job(str(copy), manifest, str(parts), 5, None), (1, 1))[0] == []


def test_a_machine_with_another_detector_at_the_path_does_nothing(detector: str, manifest: str, tmp_path: Path):
    job = begin_job(detector, manifest, str(tmp_path), 5, None)
    with pytest.raises(BoxlessError, match="on this machine it is another detector"):
        load_detector(replace(job, run=str(write_detector(tmp_path / "other.onnx", least=0.2))))


def test_parts_without_their_record_are_not_continued(parts: Path, detector: str, manifest: str, tmp_path: Path):
    (tmp_path / part_name(2)).write_bytes((parts / part_name(2)).read_bytes())
    with pytest.raises(BoxlessError, match=r"has part-00000002\.parquet and no job\.json"):
        begin_job(detector, manifest, str(tmp_path), 5, None)
    (tmp_path / "job.json").write_text('{"format": 2, "images": "many"}')
    with pytest.raises(BoxlessError, match=r"job\.json: damaged"):
        begin_job(detector, manifest, str(tmp_path), 5, None)


def test_a_part_of_a_job_that_began_at_the_same_time_is_not_read(
    parts: Path, detector: str, manifest: str, tmp_path: Path
):
    predict_manifest(detector, manifest, str(tmp_path / "other"), shard_size=5, threshold=0.2)
    (tmp_path / "mixed").mkdir()
    for name, content in contents(parts).items():
        (tmp_path / "mixed" / name).write_bytes(content)
    assert len(list(read_parts(tmp_path / "mixed"))) == sum(1 for _ in read_parts(tmp_path / "other"))
    (tmp_path / "mixed" / part_name(3)).write_bytes((tmp_path / "other" / part_name(3)).read_bytes())
    with pytest.raises(BoxlessError, match=r"part-00000003\.parquet: of another job than job\.json; delete it"):
        list(read_parts(tmp_path / "mixed"))


def test_missing_and_damaged_parts_are_named(parts: Path, tmp_path: Path):
    for name, content in contents(parts).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / part_name(3)).write_bytes(b"PAR1")
    with pytest.raises(BoxlessError, match=r"part-00000003\.parquet: damaged"):
        list(read_parts(tmp_path))
    (tmp_path / part_name(3)).unlink()
    with pytest.raises(BoxlessError, match=r"1 of 5 parts are missing, such as part-00000003\.parquet"):
        list(read_parts(tmp_path))
    with pytest.raises(BoxlessError, match="not a folder of parts"):
        list(read_parts(tmp_path / "none"))


def test_parts_become_coco_as_predict_writes_it(parts: Path, photos: Path, detector: str, tmp_path: Path):
    file = export_parts(parts, tmp_path / "a")
    runtime = Runtime(detector)
    ids = [image.id for image in read_parts(parts) if image.error is None]
    pairs = ((Path(id), runtime.predict(photos / id)) for id in ids)
    expected = FORMATS["coco"].write(tmp_path / "b", pairs, CLASSES, "")
    found, same = json.loads(file.read_text()), json.loads(expected.read_text())
    assert {**found, "info": None} == {**same, "info": None}
    assert len(found["images"]) == 18 and len(found["annotations"]) > 18
    # Formats that hold paths have those of the files, wherever they are written from.
    export_parts(parts, tmp_path / "c", "yolo")
    listed = (tmp_path / "c" / "images.txt").read_text().splitlines()
    assert listed == [str((photos / id).absolute()) for id in ids]


# Storage that fails.


def test_files_that_are_missing_are_rows_with_an_error(detector: str, tmp_path: Path, photos: Path):
    rows = {"id": [f"{n}" for n in range(12)], "uri": [f"/none/{n}.jpg" for n in range(12)]}
    path = str(tmp_path / "m.parquet")
    for found, failure in ((str(photos / "a" / "00.jpg"), None), ("/none/0.jpg", "none of the 12 images of shard 0")):
        rows["uri"][0] = found
        parquet.write_table(_table(rows), path)
        out = tmp_path / ("some" if failure is None else "none")
        (outcome,) = work_on(begin_job(detector, path, str(out), 500, None))
        if failure is None:
            assert (outcome.images, outcome.unread, outcome.failure) == (12, 11, None)
            errors = [image.error for image in read_parts(out)]
            assert errors[:2] == [None, "/none/1.jpg: there is no such file"]
        else:
            # As where the storage is not mounted on one of the machines.
            assert failure in (outcome.failure or "") and list(out.iterdir()) == [out / "job.json"]


def test_files_that_may_not_be_read_are_tried_again(
    detector: str, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    path = str(tmp_path / "m.parquet")
    parquet.write_table(_table({"id": [f"{n}" for n in range(12)], "uri": [str(photos / "a" / "00.jpg")] * 12}), path)
    job = begin_job(detector, path, str(tmp_path / "out"), 500, None)

    def denied(self, file: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", denied)
        (outcome,) = work_on(job)
    assert "none of the 12 images of shard 0 is there (the first: " in (outcome.failure or "")
    assert "cannot be read (Permission denied)" in (outcome.failure or "")
    (outcome,) = work_on(job)
    assert (outcome.images, outcome.unread, outcome.failure) == (12, 0, None)


def test_no_part_is_written_of_a_manifest_that_was_replaced(detector: str, tmp_path: Path, photos: Path):
    path, uri = str(tmp_path / "m.parquet"), str(photos / "a" / "00.jpg")
    parquet.write_table(_table({"id": ["a", "b"], "uri": [uri] * 2}), path)
    job = begin_job(detector, path, str(tmp_path / "out"), 1, None)
    runtime = load_detector(job)
    assert predict_shard(job, 0, runtime, 1).failure is None
    parquet.write_table(_table({"id": ["new", "a", "b"], "uri": [uri] * 3}), path)
    assert "m.parquet: was replaced since the command was started" in (predict_shard(job, 1, runtime, 1).failure or "")
    assert part_name(1) not in contents(tmp_path / "out")


def _table(columns: dict[str, list[str]]):
    import pyarrow as pa

    return pa.table(columns)


class Failing:
    """A file system that fails for some time; `faults` are raised by the first calls for each file."""

    def __init__(self, faults: list[Exception]) -> None:
        self.faults, self.calls = faults, Counter[str]()

    def cat_file(self, path: str) -> bytes:
        self.calls[path] += 1
        if self.calls[path] <= len(self.faults):
            raise self.faults[self.calls[path] - 1]
        return Path(path).read_bytes()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", taken.append)
    return taken


def fail(monkeypatch: pytest.MonkeyPatch, faults: list[Exception]) -> Failing:
    failing = Failing(faults)
    monkeypatch.setattr(storage, "locate", lambda uri: (failing, uri.removeprefix("far://")))
    return failing


def status(number: int) -> Exception:
    error = RuntimeError("the server's words")
    error.status = number  # type: ignore[attr-defined]
    return error


def test_storage_is_asked_again_with_growing_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses):
    (tmp_path / "a").write_bytes(b"content")
    failing = fail(monkeypatch, [ConnectionResetError("reset"), TimeoutError(), status(503)])
    assert storage.fetch(f"far://{tmp_path}/a") == b"content"
    assert (failing.calls.total(), pauses) == (4, [1, 2, 4])


@pytest.mark.parametrize(
    ("fault", "calls", "message"),
    [
        (ConnectionResetError("reset"), 4, r"far://a: cannot be read \(reset\); run the same command again"),
        (status(429), 4, "cannot be read"),
        (status(403), 1, "cannot be read"),
        (PermissionError("Access Denied"), 1, r"cannot be read \(Access Denied\)"),
    ],
)
def test_storage_that_keeps_failing_says_nothing_of_the_image(
    monkeypatch: pytest.MonkeyPatch, pauses, fault: Exception, calls: int, message: str
):
    failing = fail(monkeypatch, [fault] * 9)
    with pytest.raises(storage.StorageError, match=message):
        storage.fetch("far://a")
    assert failing.calls.total() == calls


@pytest.mark.parametrize(
    ("fault", "message"),
    [(FileNotFoundError(), "there is no such file"), (status(404), "status 404"), (status(410), "status 410")],
)
def test_what_no_other_attempt_changes_is_the_images_fault(
    monkeypatch: pytest.MonkeyPatch, pauses, fault: Exception, message: str
):
    fail(monkeypatch, [fault] * 9)
    with pytest.raises(ImageError, match=message):
        storage.fetch("far://a")
    assert pauses == []


def test_a_shard_whose_storage_fails_leaves_no_part_and_the_others_go_on(
    parts: Path, detector: str, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lost = read_rows(manifest, 7, 1)[0].uri
    fetch = storage.fetch

    def failing(uri: str) -> bytes:
        if uri == lost:
            raise storage.StorageError(f"{uri}: cannot be read")
        return fetch(uri)

    job = begin_job(detector, manifest, str(tmp_path), 5, None)
    with monkeypatch.context() as patch:
        patch.setattr("boxless.shards.work.fetch", failing)
        assert [outcome.failure for outcome in work_on(job)] == [None, f"{lost}: cannot be read", None, None, None]
        assert not (tmp_path / part_name(1)).exists()
        patch.setattr("boxless.shards.predict.run_local", lambda job, todo, workers: (each for each in work_on(job)))
        with pytest.raises(BoxlessError, match=r"1 shard failed, 0 parts of 1 written.* The first: .*cannot be read"):
            predict_manifest(detector, manifest, str(tmp_path), shard_size=5)
    work_on(job)
    assert contents(tmp_path) == contents(parts)


def test_three_failed_shards_end_the_work(detector: str, manifest: str, tmp_path: Path, monkeypatch):
    def failing(*_: object):
        for shard in range(5):
            assert shard < 3, "the work goes on"
            yield Outcome(shard, failure="the disk is full")

    monkeypatch.setattr("boxless.shards.predict.run_local", failing)
    with pytest.raises(BoxlessError, match=r"3 shards failed, 0 parts of 5 written.*the disk is full"):
        predict_manifest(detector, manifest, str(tmp_path), shard_size=5)


def test_parts_that_went_to_a_disk_of_another_machine_are_missed(detector: str, manifest: str, tmp_path, monkeypatch):
    monkeypatch.setattr("boxless.shards.predict.run_local", lambda *_: (Outcome(shard, 5) for shard in range(5)))
    with pytest.raises(BoxlessError, match=r"part-00000000\.parquet was written elsewhere; --out must be a folder"):
        predict_manifest(detector, manifest, str(tmp_path), shard_size=5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--engine", "ray"], "--engine: only with a manifest"),
        (["photos", "--shard-size", 5], "--shard-size: only with a manifest"),
        (["m.parquet", "photos"], "a manifest is given alone"),
        (["m.parquet", "--format", "voc"], "export_parts"),
    ],
)
def test_options_that_do_not_fit_are_named(
    detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list[object], message: str
):
    assert boxless(monkeypatch, "predict", detector, *words, "--out", tmp_path / "out") == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_results_go_to_folders_and_object_stores_only(detector: str, manifest: str):
    with pytest.raises(BoxlessError, match=r"a folder or an object store .*, not to memory"):
        predict_manifest(detector, manifest, "memory://out")
    with pytest.raises(BoxlessError, match="cannot be opened"):
        write_manifest("nothing://bucket", "m.parquet")


# Processes that are killed.


class Pool:
    """Works in this process; a process of the first pool ends after one shard, before another is submitted."""

    accepted = 1

    def submit(self, work: Callable[..., Outcome], *words: object) -> Future[Outcome]:
        if not Pool.accepted:
            Pool.accepted = 99
            raise BrokenProcessPool
        Pool.accepted -= 1
        future: Future[Outcome] = Future()
        future.set_result(work(*words))
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        pass


def test_a_shard_that_a_broken_pool_does_not_accept_is_done_by_the_next(
    parts: Path, detector: str, manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local, "_pool", lambda _: Pool())
    job = begin_job(detector, manifest, str(tmp_path), 5, None)
    assert sorted({outcome.shard for outcome in local.run_local(job, range(5), 1)}) == [0, 1, 2, 3, 4]
    assert contents(tmp_path) == contents(parts)


PREDICT = """
import sys, time
from boxless.shards import predict_manifest, work
if __name__ == "__main__":
    predict_manifest(*sys.argv[1:4], shard_size=1, workers=1)
"""


def children(pid: int) -> list[int]:
    """The processes that compute for a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes by Linux's /proc")
def test_a_killed_worker_and_a_killed_driver_change_nothing(detector: str, manifest: str, tmp_path: Path):
    script, out = tmp_path / "predict.py", tmp_path / "out"
    script.write_text(PREDICT)
    words = [sys.executable, str(script), detector, manifest, str(out)]

    def wait_for(number: int) -> None:
        while len(list(out.glob("part-*"))) < number:
            assert driver.poll() is None
            time.sleep(0.005)

    driver = subprocess.Popen(words, stderr=subprocess.PIPE)
    wait_for(1)
    (worker,) = children(driver.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(6)
    workers = children(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    while any(is_running(pid) for pid in workers):
        time.sleep(0.01)
    done = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert 6 < len(done) < 22 and not any(name.startswith(".") for name in done)
    subprocess.run(words, check=True, stderr=subprocess.PIPE)
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
    work_on(begin_job(detector, manifest, str(tmp_path / "undisturbed"), 1, None))
    assert contents(out) == contents(tmp_path / "undisturbed")
