"""What is predicted: a manifest in shards by one detector, as recorded beside the parts, so that no others mix in."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boxless.errors import BoxlessError
from boxless.files import expand_user
from boxless.run_path import is_exported, on_hub
from boxless.shards.manifest import count_rows, manifest_digest
from boxless.shards.storage import check_folder, join, names, read_bytes, state, writing

FORMAT = 2
"""Version of the record and the parts, raised whenever an older Boxless could not read newer ones, or a newer one
older."""
RECORD = "job.json"


@dataclass(frozen=True)
class Job:
    """The parts that one detector makes of one manifest.

    Args:
        run: run folder or exported file.
        manifest: path or URI.
        out: folder or URI that takes the parts.
        shard_size: rows of the manifest in a shard.
        threshold: least score of a box; None keeps the confident ones.
        images: rows of the manifest.
        detector, classes: what `describe` gives.
        manifest_digest: what `manifest.manifest_digest` gives.
        manifest_state: what `storage.state` gives; it decides no part.
    """

    run: str
    manifest: str
    out: str
    shard_size: int
    threshold: float | None
    images: int
    detector: str
    classes: tuple[str, ...]
    manifest_digest: str
    manifest_state: tuple[str, ...]

    @property
    def shards(self) -> int:
        """The number of shards."""
        return shard_count(self.images, self.shard_size)

    @property
    def record(self) -> dict[str, Any]:
        """What decides the bytes of the parts; two jobs with the same record may work on the same parts."""
        own = asdict(self) | {"format": FORMAT, "classes": list(self.classes)}
        return {key: own[key] for key in sorted(own) if key not in ("run", "manifest", "out", "manifest_state")}


def shard_count(images: int, shard_size: int) -> int:
    """The number of shards of so many images."""
    return math.ceil(images / shard_size)


def part_name(shard: int) -> str:
    """The file name of the part that a shard becomes."""
    return f"part-{shard:08d}.parquet"


def describe(run: str) -> tuple[str, tuple[str, ...]]:
    """A name for all that decides what a detector predicts (128 bits of BLAKE2b over its files), and its classes.

    Raises:
        BoxlessError: it is neither a finished run folder nor an exported file.
    """
    files, classes = _files(expand_user(run))
    state = hashlib.blake2b(digest_size=16)
    for path in files:
        try:
            with path.open("rb") as file:
                state.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise BoxlessError(f"{path}: cannot be read ({error.strerror})") from None
    return state.hexdigest(), tuple(classes)


def _files(path: Path) -> tuple[list[Path], Sequence[str]]:
    if is_exported(path):
        from boxless.runtime_file import read_file

        return [path], read_file(path)[1].classes
    # Imports torch, which takes seconds.
    from boxless.run_folder import CONFIG, MANIFEST, read_config, read_manifest, weight_files

    manifest = read_manifest(path)
    read_config(path)
    if not manifest["finished"]:
        raise BoxlessError(f"{path}: the training has not ended: run the same train command again")
    weights = sorted(weight_files(path, manifest).items())
    return [path / MANIFEST, path / CONFIG, *(file for _, file in weights)], manifest["classes"]


def begin_job(run: str, manifest: str, out: str, shard_size: int, threshold: float | None) -> Job:
    """Check what is to be predicted, and record it beside the parts.

    Raises:
        BoxlessError: an argument is wrong, or the parts that are there are of another job.
    """
    if shard_size < 1:
        raise BoxlessError(f"--shard-size {shard_size}: a shard has at least one image")
    if threshold is not None and math.isnan(threshold):
        raise BoxlessError("--threshold nan: give a number")
    check_folder(out)
    if model := on_hub(run):
        # Imports torch, which takes seconds.
        from boxless.hub import fetch

        run = str(fetch(model))
    # First: of a manifest that is replaced meanwhile, no part is written.
    begun = state(manifest)
    images = count_rows(manifest)
    out = out if "://" in out else str(expand_user(out).absolute())
    job = Job(run, manifest, out, shard_size, threshold, images, *describe(run), manifest_digest(manifest), begun)
    found = names(out)
    if RECORD not in found:
        if parts := sorted(name for name in found if re.fullmatch(r"part-\d+\.parquet", name)):
            raise BoxlessError(f"{out}: has {parts[0]} and no {RECORD}; choose another --out")
        with writing(join(out, RECORD)) as file:
            file.write((json.dumps(job.record, indent=1) + "\n").encode())
    # Read again, as another process may have begun another job at the same time.
    _check_same(out, read_record(out), job.record)
    return job


def read_record(out: str) -> dict[str, Any]:
    """What was recorded beside the parts.

    Raises:
        BoxlessError: there is no record, or it is damaged or of another format.
    """
    path = join(out, RECORD)
    if RECORD not in names(out):
        raise BoxlessError(
            f"{out}: not a folder of parts: it has no {RECORD}; boxless predict RUN MANIFEST.parquet --out {out} makes "
            "one"
        )
    try:
        record = json.loads(read_bytes(path))
        form = record["format"]
        if form == FORMAT and not _is_whole(record):
            raise ValueError("not as it was written")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BoxlessError(f"{path}: damaged ({error}); choose another --out") from None
    if form != FORMAT:
        raise BoxlessError(f"{path}: of format {form}; this version reads format {FORMAT}. Choose another --out")
    return dict(record)


def _is_whole(record: dict[str, Any]) -> bool:
    numbers, texts = (record["images"], record["shard_size"]), (record["detector"], *record["classes"])
    return all(type(number) is int and number > 0 for number in numbers) and all(
        isinstance(text, str) for text in texts
    )


def _check_same(out: str, found: dict[str, Any], own: dict[str, Any]) -> None:
    words = {"detector": "another detector", "manifest_digest": "another manifest", "images": "another manifest"}
    for key, value in own.items():
        if found.get(key) != value:
            reason = words.get(key) or f"{key} {found.get(key)}, not {value}"
            raise BoxlessError(f"{out}: holds parts of {reason}; choose another --out, or delete it")


def plan(job: Job, share: tuple[int, int]) -> tuple[list[int], list[int]]:
    """The shards of one of n processes: those to do and those whose part is there.

    Args:
        job: the job.
        share: i and n: every n-th shard, from the i-th on.
    """
    first, step = share
    found = names(job.out)
    own = range(first - 1, job.shards, step)
    there = [shard for shard in own if part_name(shard) in found]
    done = set(there)
    return [shard for shard in own if shard not in done], there
