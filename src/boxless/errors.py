"""Errors with causes outside the code of Boxless. Each message names the file, option or value, and the fix."""


class BoxlessError(Exception):
    """An error that a user can fix: a wrong path, a wrong option, inconsistent data."""


class ImageError(BoxlessError):
    """An image that cannot be read. Functions that process many images skip it and report the reason."""


class CancelledError(BoxlessError):
    """A training that a callback stopped; the same call resumes it."""
