"""What compressing cached feature maps costs and saves.

    python benchmarks/cache.py [--maps 100]

Maps of the cache (`$BOXLESS_CACHE`), drawn at random, are written anew by each level of Zstandard and as they are, and
read back, in turns. A row has megabytes a map and milliseconds to write and to read one, the fastest of five turns; the
files stay in the memory of the system, as they do where the cache is not larger than it.
"""

import random
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import typer
import zstandard
from _shared import machine
from numpy.typing import NDArray

from boxless.cache import LEVEL, SUFFIX, cache_root, load_array

LEVELS = (None, -5, -3, -1, 1, 3)
TURNS = 5

Array = NDArray[np.generic]


def main(maps: int = 100) -> None:
    """Measure; print the table."""
    files = sorted(cache_root().glob(f"features/*/??/*{SUFFIX}"))
    arrays = [load_array(file) for file in random.Random(0).sample(files, min(maps, len(files)))]
    # Older versions left half precision.
    arrays = [array for array in arrays if array.dtype == np.uint8]
    if not arrays:
        raise typer.BadParameter(f"{cache_root()}: no feature maps; train something first")
    zeros = np.mean([np.mean(array == 0) for array in arrays])
    print(f"{len(arrays)} maps, {zeros:.2f} of their numbers are 0, {machine()}\n")
    print("| Zstandard | MB a map | write, ms | read, ms |\n|---|---|---|---|")
    with TemporaryDirectory() as folder:
        files = [Path(folder) / str(number) for number in range(len(arrays))]
        fastest = dict.fromkeys(LEVELS, (np.inf, np.inf))
        size = {}
        for _ in range(TURNS):
            for level in LEVELS:
                spent = [seconds(partial(write, files, arrays, level)), seconds(partial(read, files, arrays, level))]
                size[level] = sum(file.stat().st_size for file in files)
                fastest[level] = tuple(np.minimum(fastest[level], spent))
    for level in LEVELS:
        name = "none" if level is None else f"level {level}{', ours' if level == LEVEL else ''}"
        milliseconds = " | ".join(f"{1000 * spent / len(arrays):.1f}" for spent in fastest[level])
        print(f"| {name} | {size[level] / len(arrays) / 1e6:.2f} | {milliseconds} |")


def write(files: list[Path], arrays: list[Array], level: int | None) -> None:
    """Write the maps."""
    for file, array in zip(files, arrays, strict=True):
        content = BytesIO()
        np.save(content, array)
        whole = content.getbuffer()
        compressed = whole if level is None else zstandard.ZstdCompressor(level, write_checksum=True).compress(whole)
        file.write_bytes(compressed)


def read(files: list[Path], arrays: list[Array], level: int | None) -> None:
    """Read them."""
    for file, array in zip(files, arrays, strict=True):
        content = file.read_bytes()
        found = np.load(BytesIO(content if level is None else zstandard.decompress(content)))
        assert found.shape == array.shape


def seconds(work: Callable[[], None]) -> float:
    """That some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
