"""Messages to users, through the standard library's `logging`: one tree of loggers below `boxless`.

Importing Boxless installs no handler. A program that uses the library configures logging itself; without any
configuration Python prints warnings only. The command line calls `log_to_console`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boxless.errors import BoxlessError
from boxless.process import is_main_process
from boxless.progress import console
from boxless.structures import Dataset
from boxless.wording import counted

logger = logging.getLogger("boxless")

EVERY_PROCESS = "every_process"
"""Attribute of records that all processes of a run print; others, errors apart, are printed by the main one alone."""
LISTED = 5
"""Skipped images whose reason is given."""


class ConsoleHandler(logging.Handler):
    """Prints messages on standard error, warnings in yellow and marked as such, above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record on a line of its own, however long."""
        if not (is_main_process() or record.levelno >= logging.ERROR or hasattr(record, EVERY_PROCESS)):
            return
        try:
            message = self.format(record)
            style = None
            if record.levelno >= logging.WARNING:
                message, style = f"Warning: {message}", "yellow"
            console().print(message, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


def log_to_console() -> None:
    """Print all messages from INFO on to standard error; a second call changes nothing."""
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())


def log_warnings(dataset: Dataset) -> Dataset:
    """Log what was understood of a dataset, what was wrong with it and how it was handled; returns the dataset."""
    if dataset.summary:
        logger.info("%s: %s", dataset.name, dataset.summary)
    for warning in dataset.warnings:
        logger.warning("%s", warning)
    return dataset


@contextmanager
def warn_if_not_written() -> Iterator[None]:
    """Write copies of results within the block: one that cannot be written is a warning."""
    try:
        yield
    except BoxlessError as error:
        logger.warning("A copy is missing: %s", error)


def log_skipped(skipped: dict[Path, str]) -> None:
    """Log how many images were skipped, with the reason of the first few."""
    if skipped:
        reasons = list(skipped.values())[:LISTED]
        if len(skipped) > LISTED:
            reasons.append(f"... and {len(skipped) - LISTED} more")
        logger.warning("%s skipped:\n  %s", counted(len(skipped), "image"), "\n  ".join(reasons))
