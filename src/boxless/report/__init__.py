"""A run told on one page: how good it is, where it is wrong, and the images to see it in."""

from boxless.report.contents import write_report

__all__ = ["write_report"]
