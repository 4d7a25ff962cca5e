"""How often each part of the campaign is tried, and what was counted."""

import os
from collections import Counter
from dataclasses import dataclass, field

import pytest

SCALE = float(os.environ.get("BOXLESS_CAMPAIGN", "1"))
"""Share of the full number of cases that `-m campaign` runs."""


def cases(few: int, many: int) -> pytest.MarkDecorator:
    """Run a test with `number=few` always unless that is 0, and with `number=many`, scaled, in the campaign."""
    large = pytest.param(max(few, 1, round(many * SCALE)), marks=pytest.mark.campaign)
    return pytest.mark.parametrize("number", [few, large] if few else [large])


@dataclass
class Tally:
    """The counts of a part.

    Args:
        counts: outcome -> how often.
        largest: measure -> largest value.
    """

    counts: Counter[str] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)

    def see(self, measure: str, value: float) -> None:
        """Keep a value if it is the largest so far."""
        self.largest[measure] = max(value, self.largest.get(measure, value))

    def __str__(self) -> str:
        counts = [f"{number:,} {outcome}" for outcome, number in self.counts.most_common()]
        largest = [f"at most {value:.3g} {measure}" for measure, value in self.largest.items()]
        return f"{self.counts.total():,} tried: {', '.join(counts + largest)}"
