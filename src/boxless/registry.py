"""Named parts that a file outside of the package can add to.

Methods, heads, seeds, mining rules, backbones, proposal generators, dataset layouts, export formats and metrics are
each kept in a `Registry`; `docs/extending.md` has an example of each.
"""

import hashlib
import inspect
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from boxless.errors import BoxlessError

T = TypeVar("T")

_drawn: dict[int, tuple[Callable[..., Any], bytes]] = {}
"""What tells functions without a file apart, by their ids: typed into an interpreter, one may be another next time. The
function is kept, so that no other gets its id."""


class Registry(dict[str, T]):
    """Parts of one kind by name, in the order in which they were registered.

    Args:
        kind: what the parts are called in messages, such as `export format`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds a part by name and returns it unchanged.

        Raises:
            BoxlessError: the name is taken.
        """

        def add(part: T) -> T:
            if name in self:
                raise BoxlessError(f"{self.kind} '{name}' is registered already; choose another name")
            self[name] = part
            return part

        return add

    def find(self, name: str) -> T:
        """The part of this name.

        Raises:
            BoxlessError: there is none; the message lists those that there are.
        """
        if name not in self:
            raise BoxlessError(f"{self.kind} '{name}' is unknown; there are {', '.join(self)}")
        return self[name]


def outside_source(part: Callable[..., Any]) -> dict[str, str]:
    """A digest of the file that defines a function from outside the package, for the names of what it makes; else {}.

    The settings of a cached array do not tell what such a function computes.
    """
    if str(getattr(part, "__module__", "")).startswith("boxless."):
        return {}
    try:
        source = Path(inspect.getfile(part)).read_bytes()
    except (OSError, TypeError):
        source = _drawn.setdefault(id(part), (part, uuid.uuid4().bytes))[1]
    return {"source": hashlib.blake2b(source, digest_size=8).hexdigest()}
