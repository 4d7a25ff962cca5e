import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "vocabulary.py"


def check(root: Path) -> int:
    """Run the tool on another folder."""
    module = runpy.run_path(str(TOOL))
    module["main"].__globals__["ROOT"] = root
    return module["main"]()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("src/boxless", "docs/lab_book"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text("Ground truth, pseudo labels; the method that we recommend takes math.ceil.\n")
    return tmp_path


def test_private_words_are_named_with_file_line_and_the_fields_word(root: Path, capsys: pytest.CaptureFixture[str]):
    (root / "src/boxless/one.py").write_text("import math\n# A closer\n# look, by PSEUDO_BOXES.\n")
    (root / "docs/page.md").write_text("# The\n\nceiling\n")
    assert check(root) == 1
    assert capsys.readouterr().out.splitlines() == [
        "src/boxless/one.py:3: PSEUDO_BOXES -> pseudo label",
        "src/boxless/one.py:2: closer # look -> rescaled pass",
        "docs/page.md:3: ceiling -> fully supervised upper bound",
    ]


def test_the_lab_book_and_ordinary_words_are_free(root: Path, capsys: pytest.CaptureFixture[str]):
    (root / "docs/lab_book/page.md").write_text("The ceiling taught by true boxes.\n")
    assert check(root) == 0
    assert not capsys.readouterr().out
