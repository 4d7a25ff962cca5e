"""Which classes have boxes that cannot be trusted: determined after training, without ground truth."""

from collections.abc import Mapping
from typing import Any

TRUSTED_AGREEMENT = 0.35
"""Least mean chance-corrected IoU of seeds and out-of-fold predictions of a class whose boxes are mostly right
(docs/lab_book)."""


def untrusted_classes(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Classes whose pseudo labels hardly agreed beyond chance -> their agreement; none without pseudo labels.

    Args:
        manifest: of a run, see `run_folder.read_manifest`.
    """
    classes = manifest.get("pseudo_labels")
    values = {
        name: own.get("agreement")
        for name, own in (classes.items() if isinstance(classes, dict) else ())
        if isinstance(own, dict)
    }
    return {
        name: value for name, value in values.items() if isinstance(value, int | float) and value < TRUSTED_AGREEMENT
    }


def trust_warning(untrusted: Mapping[str, float]) -> str:
    """One sentence on these classes; at least one."""
    names = ", ".join(f"{name} ({value:.2f})" for name, value in untrusted.items())
    return (
        f"Boxes of these classes may be wrong, as predictions by different means did not agree beyond chance in "
        f"training (chance-corrected IoU below {TRUSTED_AGREEMENT:g}): {names}. Look at them before you use them; "
        "docs/tags.md says what helps"
    )
