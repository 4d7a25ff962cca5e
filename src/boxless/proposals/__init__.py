"""Where an object may be: class-agnostic boxes computed from the image alone."""

from boxless.proposals.generate import propose
from boxless.proposals.store import ProposalStore

__all__ = ["ProposalStore", "propose"]
