"""Writing that is interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from boxless.files import write_whole


@contextmanager
def torn(path: Path) -> Iterator[SimpleNamespace]:
    """As `files.write_whole`; Ctrl-C in the middle of what is written first."""
    with write_whole(path) as file:

        def write(content: bytes) -> None:
            file.write(content[: len(content) // 2])
            raise KeyboardInterrupt

        yield SimpleNamespace(write=write)
