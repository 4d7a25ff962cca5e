"""Against moto's S3 server on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxless.errors import BoxlessError
from boxless.shards import read_parts, storage, write_manifest
from boxless.shards.job import begin_job, part_name, plan
from boxless.shards.manifest import read_rows
from boxless.shards.work import Outcome, load_detector, predict_shard


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(key, value)
        files, _ = storage.locate("s3://images")
        files.mkdir("images")
        yield "s3://images"
        files.clear_instance_cache()
    server.stop()


def test_images_manifest_and_parts_in_object_storage(bucket: str, photos: Path, detector: str, tmp_path: Path):
    files, _ = storage.locate(bucket)
    for file in photos.rglob("*.*"):
        files.pipe_file(f"images/photos/{file.relative_to(photos).as_posix()}", file.read_bytes())
    files.pipe_file("images/photos/notes.txt", b"")
    manifest, out = f"{bucket}/photos.parquet", f"{bucket}/found/first"
    assert write_manifest(f"{bucket}/photos", manifest).images == 21
    rows = read_rows(manifest, 0, 21)
    assert sorted(row.id for row in rows) == sorted(
        file.relative_to(photos).as_posix() for file in photos.rglob("*.*") if file.is_file()
    )
    assert all(row.uri == f"{bucket}/photos/{row.id}" for row in rows)
    job = begin_job(detector, manifest, out, 8, None)
    runtime = load_detector(job)
    assert [predict_shard(job, shard, runtime, 1).failure for shard in (2, 0)] == [None, None]
    assert plan(job, (1, 1)) == ([1], [0, 2])
    assert predict_shard(job, 1, runtime, 1).images == 8
    assert predict_shard(job, 1, runtime, 1) == Outcome(1)
    assert storage.names(out) == {"job.json", *map(part_name, range(3))}
    # The same as from files.
    local, there = str(tmp_path / "photos.parquet"), str(tmp_path / "out")
    write_manifest(str(photos), local)
    own = begin_job(detector, local, there, 8, None)
    for shard in range(3):
        predict_shard(own, shard, runtime, 1)
    expected = {image.id: image for image in read_parts(there)}
    for image in read_parts(out):
        same = expected.pop(image.id)
        if image.detections is None or same.detections is None:
            assert image.error is not None and same.error is not None
            assert image.error.removeprefix(image.uri) == same.error.removeprefix(same.uri)
        else:
            assert image.detections.boxes.tobytes() == same.detections.boxes.tobytes()
            assert image.detections.scores.tobytes() == same.detections.scores.tobytes()
    assert not expected


def test_what_is_not_in_object_storage_is_named(bucket: str, detector: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    with pytest.raises(BoxlessError, match="cannot be listed"):
        write_manifest("s3://no-such-bucket/photos", os.devnull)
    with pytest.raises(storage.MissingImageError, match=r"s3://images/none\.jpg: there is no such file"):
        storage.fetch(f"{bucket}/none.jpg")
    with pytest.raises(BoxlessError, match="cannot be written"), storage.writing("s3://no-such-bucket/a") as file:
        file.write(b"content")
    with pytest.raises(RuntimeError), storage.writing(f"{bucket}/half") as file:
        file.write(b"half")
        raise RuntimeError
    assert not storage.exists(f"{bucket}/half")
