"""Manifests: Parquet tables of images, a row an image, which are written and read without holding them in memory.

The columns are `id`, a name that is unique in the manifest, and `uri`, an absolute path or a URI that fsspec opens.
Other columns are not read.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from os import PathLike, fspath
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boxless.errors import BoxlessError, in_one_line
from boxless.image_files import suffixes, unread_formats, walk_files
from boxless.shards.storage import attempt, local_path, locate, opened, writing

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError:
    raise BoxlessError("pyarrow is not installed: in the checkout pip install -e '.[shards]'") from None

ROWS_PER_GROUP = 10_000
"""Rows of a manifest that are held at a time. A shard reads the groups that it lies in."""
SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("uri", pa.string(), nullable=False)])


class ImageRow(NamedTuple):
    """A row of a manifest."""

    id: str
    uri: str


class Listing(NamedTuple):
    """What was listed.

    Args:
        images: number of images in the manifest.
        left_out: number of image files that cannot be read by their format or name.
        reason: of the first of these; empty where there is none.
    """

    images: int
    left_out: int
    reason: str


def write_manifest(source: str | PathLike[str], out: str | PathLike[str]) -> Listing:
    """List the image files below a folder or URI, in formats that are read here, into a manifest.

    Files are listed as `boxless predict` finds them: hidden ones are left out. `id` is the path below the folder. One
    folder's names and `ROWS_PER_GROUP` rows are held at a time.

    Args:
        source: a folder, or a URI such as `s3://bucket/photos`.
        out: the file, a path or URI.

    Raises:
        BoxlessError: there is no such folder or no image in it, or the file cannot be written.
    """
    images = left_out = 0
    first = ""

    def readable() -> Iterator[tuple[str, str]]:
        nonlocal left_out, first
        for id, uri in _walk(fspath(source)):
            if reason := _why_left_out(id):
                left_out, first = left_out + 1, first or f"{uri!a}: {reason}"
            else:
                yield id, uri

    rows = readable()
    with writing(fspath(out)) as file, parquet.ParquetWriter(file, SCHEMA, compression="zstd") as table:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            ids, uris = zip(*group, strict=True)
            table.write_table(pa.table([ids, uris], schema=SCHEMA), row_group_size=ROWS_PER_GROUP)
            images += len(group)
        if not images:
            raise BoxlessError(f"{source}: there is no image{first and f' that is read; the first left out: {first}'}")
    return Listing(images, left_out, first)


def _walk(source: str) -> Iterator[tuple[str, str]]:
    """The path below the source and the URI of every file that may be an image."""
    folder = local_path(source)
    if folder is None:
        yield from _walk_remote(source)
        return
    if not folder.is_dir():
        raise BoxlessError(f"{source}: {'not a folder' if folder.exists() else 'does not exist'}")
    for file in walk_files(folder, suffixes() | unread_formats().keys()):
        yield file.relative_to(folder).as_posix(), str(file)


def _walk_remote(source: str) -> Iterator[tuple[str, str]]:
    files, root = locate(source)
    root, wanted = root.rstrip("/"), suffixes() | unread_formats().keys()

    def listed(folder: str) -> dict[str, bool]:
        """Path -> whether it is a folder, of all that is in a folder."""
        found = files.ls(folder, detail=True)
        return {str(entry["name"]).rstrip("/"): entry["type"] == "directory" for entry in found}

    # Not fsspec's `walk`, which leaves out folders below the first that cannot be listed.
    folders = [root]
    while folders:
        folder = folders.pop()
        entries = attempt(partial(listed, folder), source, "listed")
        below = sorted(path for path in entries if path != folder and not PurePosixPath(path).name.startswith("."))
        folders += [path for path in reversed(below) if entries[path]]
        for path in below:
            if not entries[path] and PurePosixPath(path).suffix.lower() in wanted:
                yield path.removeprefix(root).lstrip("/"), str(files.unstrip_protocol(path))


def _why_left_out(id: str) -> str | None:
    try:
        id.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return unread_formats().get(PurePosixPath(id).suffix.lower())


def count_rows(manifest: str) -> int:
    """The number of images in a manifest.

    Raises:
        BoxlessError: it cannot be read, is no manifest, or has no rows.
    """
    with _table(manifest) as table:
        names = table.schema_arrow.names
        for name in SCHEMA.names:
            kind = table.schema_arrow.field(name).type if names.count(name) == 1 else None
            if kind not in (pa.string(), pa.large_string()):
                raise BoxlessError(
                    f"{manifest}: not a manifest: it has no column '{name}' of text (found: {', '.join(names)}); "
                    "boxless manifest DIR --out FILE makes one"
                )
        if not table.metadata.num_rows:
            raise BoxlessError(f"{manifest}: has no rows")
        return int(table.metadata.num_rows)


def read_rows(manifest: str, first: int, count: int) -> list[ImageRow]:
    """`count` rows of a manifest, from row number `first` on.

    Raises:
        BoxlessError: it cannot be read, or one of the rows has no absolute URI.
    """
    rows: list[ImageRow] = []
    with _table(manifest) as table:
        start = 0
        for number in range(table.num_row_groups):
            end = start + table.metadata.row_group(number).num_rows
            if start < first + count and first < end:
                group = table.read_row_group(number, SCHEMA.names).slice(max(0, first - start))
                group = group.slice(0, first + count - max(start, first))
                pairs = zip(group["id"].to_pylist(), group["uri"].to_pylist(), strict=True)
                rows += [ImageRow(id, uri) for id, uri in pairs]
            start = end
    for number, (id, uri) in enumerate(rows, first):
        if not id or not uri or ("://" not in uri and not Path(uri).is_absolute()):
            raise BoxlessError(
                f"{manifest}: row {number} has the id {id!r} and the URI {uri!r}; each needs an id, and an absolute "
                "path or a URI"
            )
    return rows


def manifest_digest(manifest: str) -> str:
    """A name for the content of a manifest: 128 bits of BLAKE2b over its bytes.

    Raises:
        BoxlessError: it cannot be read.
    """
    with opened(manifest) as file:
        state = hashlib.blake2b(digest_size=16)
        while block := attempt(lambda: file.read(2**20), manifest, "read"):
            state.update(block)
        return state.hexdigest()


@contextmanager
def _table(manifest: str) -> Iterator[parquet.ParquetFile]:
    with opened(manifest) as file:
        try:
            yield parquet.ParquetFile(file)
        except BoxlessError:
            raise
        except Exception as error:  # Of Parquet, or of the storage.
            raise BoxlessError(
                f"{manifest}: cannot be read as Parquet ({in_one_line(error)}); boxless manifest DIR --out FILE makes "
                "one"
            ) from None
