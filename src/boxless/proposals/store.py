"""Proposals on disk: computed once over all cores, resumed where they stopped."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from boxless.cache import entry, load_array, open_store, save_array
from boxless.config import ProposalConfig
from boxless.images import read_image
from boxless.progress import track_images
from boxless.proposals.generate import generate, select
from boxless.proposals.grouping import REVISION
from boxless.structures import FloatArray


class ProposalStore:
    """Proposals of many images, keyed by the images' content and the settings.

    Args:
        config: generator and filters.

    Raises:
        BoxlessError: the cache folder cannot be written.
    """

    def __init__(self, config: ProposalConfig) -> None:
        self.config = config
        # What is stored is unfiltered, so that another filter costs nothing.
        settings = config.model_dump(exclude={"min_side", "min_area"})
        made_by = {"grouping": REVISION} if config.generator == "grouping" else {}
        self._folder = open_store("proposals", {**settings, "opencv": cv2.__version__, **made_by})

    def load(self, key: str) -> FloatArray:
        """Proposals of the image with this content key: (N, 4) float32, xyxy pixels."""
        return select(np.array(load_array(entry(self._folder, key))), self.config)

    def compute(self, images: Mapping[str, Path]) -> dict[Path, str]:
        """Compute what is not there yet, an image a core.

        Threads serve, as all generators let go of Python's lock while they work.

        Args:
            images: content key -> file.

        Returns:
            Images that could not be read -> reason.
        """
        missing = {key: path for key, path in images.items() if not entry(self._folder, key).exists()}

        def work(key: str, path: Path) -> None:
            save_array(entry(self._folder, key), generate(read_image(path), self.config))

        return track_images(work, missing, "Proposals", None)
