import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    folder = Path(os.environ["BOXLESS_DATA"])
    assert folder.is_dir(), f"BOXLESS_DATA={folder} is no folder"
    return folder
