"""Bounds of settings, which configurations and exported files share."""

MAX_VIEWS = 16
"""Views of an image at inference."""
MAX_SIDE = 10_000
"""Pixels of a view's longest side, of the image that regions are grouped on, and of a proposal's `min_side`."""
MAX_BOXES = 10_000
"""Detections of an image."""
