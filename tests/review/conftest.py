from pathlib import Path

import pytest
from reviewing import write_review


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a review, see `reviewing`."""
    write_review(tmp_path / "review")
    return tmp_path / "review"
