"""Damaged files of a run folder: an error of one line, never a traceback."""

from collections import defaultdict
from pathlib import Path

import pytest
from counting import Tally, cases
from damage import damage_often
from run_victims import RUNS
from victims import Victim


@cases(few=3, many=100)
@pytest.mark.parametrize("victim", RUNS, ids=lambda victim: f"{victim.form} {victim.name}")
def test_a_damaged_file_of_a_run_is_refused_in_a_line_or_read(
    victim: Victim, number: int, tmp_path: Path, tallies: defaultdict[str, Tally]
) -> None:
    damage_often(victim, number, tmp_path / "folder", tallies[f"run folders, {victim.form}"])
