"""A trained detector by its path, whichever form it has."""

import os

from boxless.files import expand_user
from boxless.predictor import Predictor
from boxless.run_path import is_exported


def load_predictor(path: str | os.PathLike[str]) -> Predictor:
    """What predicts: of a run folder, or of a file of `boxless export`, which needs no torch.

    Raises:
        BoxlessError: it is neither, or cannot be loaded.
    """
    file = expand_user(path)
    if is_exported(file):
        from boxless.runtime import Runtime

        return Runtime(file)
    # Importing torch takes seconds, and it may not be installed.
    from boxless.detector import Detector

    return Detector.load(file)
