"""Parts: Parquet files of predictions, a row an image, in the order of the manifest."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from boxless.errors import BoxlessError, ImageError, in_one_line
from boxless.export import FORMATS
from boxless.files import expand_user
from boxless.shards.job import RECORD, part_name, read_record, shard_count
from boxless.shards.manifest import ImageRow
from boxless.shards.storage import join, names, read_bytes
from boxless.structures import Detections

KEY = b"boxless"
"""Key of the metadata of a part; the value is JSON."""
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        ("scores", pa.list_(pa.float32())),
        ("raw_scores", pa.list_(pa.float32())),
        ("names", pa.list_(pa.string())),
        ("image_scores", pa.list_(pa.float32())),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class PredictedImage:
    """A row of a part.

    Args:
        id, uri: of the manifest.
        detections: None where the image cannot be read.
        error: why it cannot be read, and the fix.
    """

    id: str
    uri: str
    detections: Detections | None
    error: str | None


def encode_part(rows: Sequence[ImageRow], found: Sequence[Detections | ImageError], metadata: dict[str, Any]) -> bytes:
    """A part as the bytes of a Parquet file, which depend on nothing but the arguments and the release of pyarrow.

    Args:
        rows: of the manifest.
        found: of each its boxes, or why it cannot be read.
        metadata: the record of its job (`job.Job.record`): `classes`, which `image_scores` are of, and what made it.
    """
    table = pa.Table.from_pylist([_row(*pair) for pair in zip(rows, found, strict=True)], schema=SCHEMA)
    table = table.replace_schema_metadata({KEY: json.dumps(metadata, sort_keys=True)})
    content = BytesIO()
    parquet.write_table(table, content, compression="zstd")
    return content.getvalue()


def _row(image: ImageRow, found: Detections | ImageError) -> dict[str, Any]:
    if isinstance(found, ImageError):
        # Addresses in memory, which libraries write into messages, differ from process to process.
        return {**image._asdict(), "error": re.sub(" at 0x[0-9a-fA-F]+", "", str(found))}
    width, height = found.size
    return {
        **image._asdict(),
        "width": width,
        "height": height,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "raw_scores": None if found.raw_scores is None else found.raw_scores.tolist(),
        "names": found.names,
        "image_scores": found.image_scores.tolist(),
    }


def read_parts(out: str | PathLike[str]) -> Iterator[PredictedImage]:
    """Yield the images of a folder of parts, in the order of the manifest, with one part in memory at a time.

    Args:
        out: folder or URI that `predict_manifest` wrote to.

    Raises:
        BoxlessError: it is no such folder, parts are missing, or one is damaged or of another job.
    """
    folder = fspath(out)
    record = read_record(folder)
    parts = [part_name(number) for number in range(shard_count(record["images"], record["shard_size"]))]
    found = names(folder)
    if missing := [part for part in parts if part not in found]:
        raise BoxlessError(
            f"{folder}: {len(missing)} of {len(parts)} parts are missing, such as {missing[0]}; run boxless predict "
            "again"
        )
    for part in parts:
        yield from _read_part(join(folder, part), record)


def _read_part(uri: str, record: dict[str, Any]) -> Iterator[PredictedImage]:
    try:
        table = parquet.read_table(pa.BufferReader(read_bytes(uri)))
        metadata = json.loads(table.schema.metadata[KEY])
        classes = tuple(metadata["classes"])
        rows = table.select(SCHEMA.names).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise BoxlessError(f"{uri}: damaged ({in_one_line(error)}); delete it and run boxless predict again") from None
    if metadata != record:
        # Two were begun at the same time.
        raise BoxlessError(f"{uri}: of another job than {RECORD}; delete it and run boxless predict again")
    for row in rows:
        detections = None if row["error"] is not None else _detections(row, classes)
        yield PredictedImage(row["id"], row["uri"], detections, row["error"])


def _detections(row: dict[str, Any], classes: tuple[str, ...]) -> Detections:
    raw = row["raw_scores"]
    return Detections(
        np.array(row["boxes"], np.float32).reshape(-1, 4),
        np.array(row["scores"], np.float32),
        np.array([classes.index(name) for name in row["names"]], np.int64),
        classes,
        (row["width"], row["height"]),
        np.array(row["image_scores"], np.float32),
        None if raw is None else np.array(raw, np.float32),
    )


def export_parts(parts: str | PathLike[str], out: str | PathLike[str], format: str = "coco") -> Path:
    """Write the boxes of a folder of parts as annotations for other programs; images that were not read are left out.

    Images are named by the `id` of the manifest, which `boxless manifest` makes the path below its folder; formats that
    hold absolute paths of images name those on this machine by `uri`, their path.

    Args:
        parts: folder or URI that `predict_manifest` wrote to.
        out: folder of what is written.
        format: a key of `boxless.export.FORMATS`.

    Returns:
        The file or folder.

    Raises:
        BoxlessError: see `read_parts`; there is no such format, or `out` cannot be written.
    """
    form = FORMATS.find(format)
    record = read_record(fspath(parts))

    def path(image: PredictedImage) -> Path:
        return Path(image.uri if form.absolute_paths and "://" not in image.uri else image.id)

    images = ((path(image), image.detections) for image in read_parts(parts) if image.detections is not None)
    return form.write(expand_user(out), images, record["classes"], f"detector {record['detector']}")
