"""Checks of a dataset before training: a verdict for each class, with the reason and the fix."""

from boxless.doctor.examination import examine
from boxless.doctor.finding import Finding

__all__ = ["Finding", "examine"]
