"""Numbers, their nouns, times, and remarks on results, in messages."""

from collections.abc import Mapping
from typing import Any


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """A number and its noun, such as `1 image` and `2,424 images`.

    Args:
        number: how many.
        noun: for one.
        nouns: for any other number; None adds the ending of the plural to `noun`.
    """
    if number != 1:
        noun = nouns or noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {noun}"


def duration(seconds: float) -> str:
    """A time in its two largest units, such as `45 s`, `7 min 12 s` and `1 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def training_images_note(result: Mapping[str, Any]) -> str:
    """A sentence on results of images that the detector was trained on.

    Args:
        result: of `evaluate` or `diagnose`, whose `training_images` are more than none.
    """
    number, images = result["training_images"], counted(result["images"], "image")
    return f"{result['data']}: trained on {number:,} of the {images}, whose scores are higher than those of new images"


def supervision_note(result: Mapping[str, Any]) -> str:
    """A remark for results that are not from tags alone, else an empty string.

    Args:
        result: of `evaluate` or `diagnose`, whose `supervision` decides.
    """
    notes = {"tags": "", "boxes": " (fully supervised upper bound)"}
    return notes.get(result["supervision"], f" ({result['supervision']})")
