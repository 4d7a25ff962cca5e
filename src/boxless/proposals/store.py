"""Cached proposals: computed once, in threads, and resumed after an interruption."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from boxless.cache import entry, find_arrays, load_array, open_store, save_array
from boxless.cache_use import record_use
from boxless.config import ProposalConfig
from boxless.images import read_image
from boxless.parallel import map_images
from boxless.proposals.generate import GENERATORS, generate, select
from boxless.proposals.grouping import REVISION
from boxless.registry import outside_source
from boxless.structures import FloatArray


class ProposalStore:
    """Cached proposals of images, keyed by the images' content, the settings and the version of the generator.

    Args:
        config: generator and filters.

    Raises:
        BoxlessError: no generator has this name, or the cache folder cannot be written.
    """

    def __init__(self, config: ProposalConfig) -> None:
        self.config = config
        # The filters are not part of the key, since unfiltered boxes are stored. `mode` was a setting once.
        settings = {"generator": config.generator, "size": config.size, "mode": "fast", "opencv": cv2.__version__}
        self._folder = open_store("proposals", settings | _version(config.generator))

    def load(self, key: str) -> FloatArray:
        """Proposals of the image with this content key: (N, 4) float32, xyxy pixels.

        Raises:
            BoxlessError: they were not computed, or the entry is damaged.
        """
        return select(load_array(entry(self._folder, key)), self.config)

    def compute(self, images: Mapping[str, Path]) -> dict[Path, str]:
        """Compute the proposals that are not cached yet, or damaged, one image per core at a time.

        Args:
            images: content key -> file.

        Returns:
            Images that could not be read -> reason.
        """
        record_use([self._folder], images)
        whole = find_arrays([entry(self._folder, key) for key in images])
        missing = {path: key for key, path in images.items() if entry(self._folder, key) not in whole}
        skipped: dict[Path, str] = {}

        def work(path: Path) -> None:
            save_array(entry(self._folder, missing[path]), generate(read_image(path), self.config))

        for _ in map_images(work, missing, "Proposals", None, skipped):
            pass
        return skipped


def _version(generator: str) -> dict[str, Any]:
    """What the boxes depend on besides the settings."""
    return {"grouping": REVISION} if generator == "grouping" else outside_source(GENERATORS.find(generator))
