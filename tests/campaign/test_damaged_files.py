"""Damaged files: an error of one line, or an image or annotation that is skipped and counted; never a traceback."""

from collections import defaultdict
from pathlib import Path

import pytest
from counting import Tally, cases
from damage import damage_often
from victims import VICTIMS, Victim


@cases(few=5, many=180)
@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: f"{victim.form} {victim.name}")
def test_a_damaged_file_is_refused_in_a_line_or_skipped_and_counted(
    victim: Victim, number: int, tmp_path: Path, tallies: defaultdict[str, Tally]
) -> None:
    damage_often(victim, number, tmp_path / "folder", tallies[f"files, {victim.form}"])
