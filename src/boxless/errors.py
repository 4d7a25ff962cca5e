"""Errors with causes outside the code of Boxless. Each message names the file, option or value, and the fix."""

from collections.abc import Mapping, Sequence
from typing import Any


class BoxlessError(Exception):
    """An error that a user can fix: a wrong path, a wrong option, inconsistent data."""


class ImageError(BoxlessError):
    """An image that cannot be read. Functions that process many images skip it and report the reason."""


class CancelledError(BoxlessError):
    """A training that a callback stopped; the same call resumes it."""


def in_one_line(error: BaseException) -> str:
    """What an error of a library says, which may be many lines, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def first_problem(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's errors, with its place in the input where it has one, in one line."""
    place, message = ".".join(map(str, errors[0]["loc"])), message_of(errors[0])
    return f"{place}: {message}" if place else message


def message_of(problem: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, without the kind of exception that a validator raised."""
    return str(problem["msg"]).removeprefix("Value error, ")
