"""Region proposals: class-agnostic boxes that may contain an object, computed from the image alone."""

from boxless.proposals.generate import GENERATORS, Generator, propose

__all__ = ["GENERATORS", "Generator", "propose"]
