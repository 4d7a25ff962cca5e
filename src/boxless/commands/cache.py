"""`boxless cache`: what the cache holds, and removing what was not used for longest."""

import re
import time
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from boxless.errors import BoxlessError
from boxless.logs import logger
from boxless.tables import results

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it.")] = False,
    limit: Annotated[
        str | None, typer.Option(help="Such as 20GB: remove what was not used for longest until the rest fits.")
    ] = None,
) -> None:
    """Show what the cache holds, of which images and how large; remove it, but never what a running training uses."""
    # Here, as exported detectors run where what caches need is not installed.
    from boxless.cache import cache_root
    from boxless.cache_use import cache_contents, shrink_cache

    if clear and limit is not None:
        raise BoxlessError("--clear and --limit: give one of them")
    if clear or limit is not None:
        removed, left = shrink_cache(0 if limit is None else parse_size(limit))
        logger.info("%s: removed %s, kept %s", cache_root(), _size(removed), _size(left))
        return
    contents = cache_contents()
    table = Table("what", "made with", "images", "arrays", "size", "last use")
    for content in contents:
        when = "in use" if content.in_use else time.strftime("%Y-%m-%d %H:%M", time.localtime(content.time))
        texts = (content.kind, content.made_with, content.images or "not known")
        table.add_row(*map(Text, texts), f"{content.arrays:,}", _size(content.size), when)
    results.print(table if contents else f"{cache_root()}: empty", soft_wrap=not contents)
    if contents:
        logger.info("%s: %s", cache_root(), _size(sum(content.size for content in contents)))


def parse_size(text: str) -> int:
    """Bytes from a text such as `20GB`, `1.5 TB` or `1000`.

    Raises:
        BoxlessError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]B|)", text.strip().upper())
    if match is None:
        raise BoxlessError(f"--limit {text}: takes a size such as 500MB, 20GB or 1.5TB")
    return int(float(match[1]) * _UNITS[match[2]])


def _size(size: int) -> str:
    for unit in ("TB", "GB", "MB", "KB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.1f} {unit}"
    return f"{size} bytes"
