"""What the path of a run names: a run folder, a file of `boxless export`, or a model on the Hugging Face Hub."""

import os
import re
from pathlib import PurePath
from typing import NamedTuple

from boxless.errors import BoxlessError
from boxless.files import expand_user

SUFFIX = ".onnx"
"""Suffix of the files of `boxless export`."""


class HubModel(NamedTuple):
    """A model on the Hub.

    Args:
        repo: `OWNER/NAME`.
        revision: branch, tag or commit; None is the newest.
    """

    repo: str
    revision: str | None = None


def on_hub(path: str | os.PathLike[str]) -> HubModel | None:
    """The model that `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION` names; None for any other path.

    Raises:
        BoxlessError: it begins so and goes on otherwise.
    """
    # `Path` makes one slash of two, and on Windows a backslash.
    text = path.as_posix() if isinstance(path, PurePath) else str(path)
    begun = re.match(r"hf:/{1,2}", text)
    return None if begun is None else parse_repo(text[begun.end() :])


def parse_repo(text: str) -> HubModel:
    """The model that `OWNER/NAME` or `OWNER/NAME@REVISION` names.

    Raises:
        BoxlessError: it is written otherwise.
    """
    repo, at, revision = text.partition("@")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo, re.ASCII) or (at and not revision):
        raise BoxlessError(f"'{text}' names no model on the Hub: write OWNER/NAME, as in hf://OWNER/NAME")
    return HubModel(repo, revision or None)


def is_exported(run: str | os.PathLike[str]) -> bool:
    """Whether a path names an exported file, which may be missing, rather than a run folder."""
    path = expand_user(run)
    return path.suffix.lower() == SUFFIX and not path.is_dir()
