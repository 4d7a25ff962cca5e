"""The report of a run: one HTML page with scores, kinds of errors, and images with boxes and heatmaps."""

from boxless.report.contents import write_report

__all__ = ["write_report"]
