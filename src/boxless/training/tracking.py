"""Progress of a run in TensorBoard and Weights & Biases, through accelerate."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from boxless.errors import BoxlessError
from boxless.structures import Detections, Heatmaps
from boxless.visualize import draw_boxes, heatmap_panel

TRACKERS = ("tensorboard", "wandb")


def check_trackers(names: Sequence[str]) -> None:
    """Fail early.

    Raises:
        BoxlessError: a tracker is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise BoxlessError(f"tracker '{name}' is unknown; there are {', '.join(TRACKERS)}")
        try:
            __import__(name)
        except ImportError:
            raise BoxlessError(
                f"tracker '{name}' is not installed: in the checkout pip install -e '.[track]'"
            ) from None


def start_trackers(accelerator: Accelerator, run: Path, config: Mapping[str, Any], name: str) -> None:
    """Open the trackers that the accelerator was given; Weights & Biases goes offline where there is no account.

    Args:
        accelerator: with `log_with` set.
        run: the run folder; both keep their files in it.
        config: nested settings of the run.
        name: identifies the run, so that a resumed one goes on in the same place.
    """
    wandb_options: dict[str, Any] = {"dir": str(run), "name": run.name, "id": name, "resume": "allow"}
    if "WANDB_MODE" not in os.environ and any(tracker == "wandb" for tracker in map(str, accelerator.log_with)):
        import wandb

        wandb_options["mode"] = "online" if wandb.api.api_key else "offline"
    accelerator.init_trackers("boxless", _flat(config), init_kwargs={"wandb": wandb_options})


def log_images(
    accelerator: Accelerator,
    results: Sequence[tuple[str, NDArray[np.uint8], Detections, Heatmaps]],
    step: int,
) -> None:
    """Send heatmaps and boxes of some images; Weights & Biases gets boxes as its own overlays.

    Args:
        accelerator: with trackers started.
        results: name, image, detections worth showing, heatmaps.
        step: of the optimizer.
    """
    for tracker in accelerator.trackers:
        for name, image, found, heatmaps in results:
            panel = heatmap_panel(image, heatmaps, found.image_scores)
            if tracker.name == "tensorboard":
                tracker.writer.add_image(f"heatmaps/{name}", panel, step, dataformats="HWC")
                tracker.writer.add_image(f"boxes/{name}", draw_boxes(image, found), step, dataformats="HWC")
            elif tracker.name == "wandb":
                import wandb

                overlay = wandb.Image(image, caption=name, boxes={"predictions": _wandb_boxes(found)})
                tracker.log({f"heatmaps/{name}": wandb.Image(panel), f"boxes/{name}": overlay}, step=step)


def _wandb_boxes(found: Detections) -> dict[str, Any]:
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return {
        "box_data": [
            {
                "position": {"minX": box[0], "minY": box[1], "maxX": box[2], "maxY": box[3]},
                "domain": "pixel",
                "class_id": label,
                "box_caption": f"{found.classes[label]} {score:.2f}",
                "scores": {"score": score},
            }
            for box, score, label in rows
        ],
        "class_labels": dict(enumerate(found.classes)),
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    # TensorBoard takes single values only.
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, int | float | str) else str(value)
    return flat
