"""Can these tags work at all? A verdict for each class, with the reason and the mend."""

from boxless.doctor.examination import examine
from boxless.doctor.finding import Finding

__all__ = ["Finding", "examine"]
