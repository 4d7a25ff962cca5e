"""Region proposals: class-agnostic boxes that may contain an object, computed from the image alone."""

from boxless.proposals.generate import GENERATORS, Generator, propose
from boxless.proposals.store import ProposalStore

__all__ = ["GENERATORS", "Generator", "ProposalStore", "propose"]
