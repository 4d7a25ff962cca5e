"""The figure of the README, docs/recipe.png: the steps from tags to boxes on images of a finished run.

    boxless demo
    python benchmarks/figure.py runs/demo/run runs/demo/VOC-demo --image 000160 --result 000264

RUN is the folder of a training with `seeded` on the split `--split` of DATA. Its cross-fitted networks predict again,
but without the rescaled pass for small objects. Steps 1 to 4 show an image with one tag, by default that of a kept
pseudo label whose CAM box and out-of-fold box differ most. Step 6 shows an image of the split `--test`.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from boxless import Annotations, Dataset, Detector, Sample, load_dataset
from boxless.cached_dataset import CachedDataset, cache_dataset
from boxless.images import read_image
from boxless.methods.box_ops import paired_iou
from boxless.pseudo_labels.consensus import consensus
from boxless.pseudo_labels.cross_fitting import draw_folds
from boxless.pseudo_labels.held_out import boxes_for_tags
from boxless.pseudo_labels.mosaic import compose_mosaics
from boxless.pseudo_labels.seeds import cam_seed
from boxless.pseudo_labels.snapping import snap_all
from boxless.structures import FloatArray
from boxless.views import views_of

Pixels = NDArray[np.uint8]
ORANGE, BLUE, GREEN = "#e69f00", "#56b4e9", "#00b34a"
IMAGES = 40
"""Images of one class that are predicted; the figure's is chosen from them, and mosaics are composed of them."""


def main(
    run: Path,
    data: Path,
    split: Annotated[str, typer.Option(help="The split that the run was trained on.")] = "train",
    test: Annotated[str, typer.Option(help="The split of the last panel.")] = "val",
    image: Annotated[str | None, typer.Option(help="Id of the image of steps 1 to 4.")] = None,
    result: Annotated[str | None, typer.Option(help="Id of the image of step 6.")] = None,
    out: Annotated[Path, typer.Option(help="Image file.")] = Path("docs/recipe.png"),
) -> None:
    """Predict with the networks of a run, and draw."""
    detector, cam = Detector.load(run), Detector.load(run / "cam")
    cached = cache_dataset(
        load_dataset(data, split).with_classes(detector.classes).tags_only(),
        detector.features,
        list(dict.fromkeys((*cam.views, *views_of(detector.config.views)))),
        detector.config.proposals,
    )
    rows = _rows_of_one_class(cached.dataset, image)
    part = cached.subset(rows)
    seeds, held_out = snap_all(cam_seed(part, cam), part), _held_out(run, detector, cached, rows)
    labels = snap_all(consensus(seeds, held_out, part.sizes, detector.config.pseudo_labels.consensus_iou), part)
    chosen = 0 if image else _most_moved(seeds, held_out, labels)
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.7), layout="constrained")
    panels = axes.ravel()
    _draw_cam(panels[:3], part, chosen, cam)
    _draw_consensus(panels[3], part, chosen, (seeds[chosen], held_out[chosen], labels[chosen]))
    _draw_mosaic(panels[4], part.with_boxes(labels).dataset.samples, max(detector.config.views.scales))
    _draw_detections(panels[5], load_dataset(data, test).samples, result, detector)
    figure.savefig(out, dpi=95)
    # A fifth of the size.
    Image.open(out).convert("RGB").quantize(256).save(out, optimize=True)


def _rows_of_one_class(dataset: Dataset, image: str | None) -> list[int]:
    """Rows of images with one tag, all of one class: `image` first where it is given."""
    rows = [row for row, sample in enumerate(dataset.samples) if len(sample.tags) == 1 and not sample.unsure]
    if image is not None:
        rows.sort(key=lambda row: dataset.samples[row].id != image)
    tags = dataset.samples[rows[0]].tags
    return [row for row in rows if dataset.samples[row].tags == tags][:IMAGES]


def _held_out(run: Path, detector: Detector, cached: CachedDataset, rows: Sequence[int]) -> list[Annotations]:
    """The box of the tag of each of these images, by the last round's network that was not trained on it."""
    rules = detector.config.pseudo_labels
    folds = draw_folds(cached, rules.folds, detector.config.seed)
    found: dict[int, Annotations] = {}
    for fold in range(rules.folds):
        own = [row for row in rows if folds[row] == fold]
        network = Detector.load(run / f"fold-{rules.rounds}-{fold + 1}")
        found |= dict(zip(own, boxes_for_tags(network, cached, own, "Out-of-fold predictions"), strict=True))
    return [found[row] for row in rows]


def _most_moved(seeds: Sequence[Annotations], held_out: Sequence[Annotations], labels: Sequence[Annotations]) -> int:
    """The image with a kept label whose seed and out-of-fold box differ most."""
    pairs = zip(seeds, held_out, strict=True)
    ious = [paired_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).item() for one, other in pairs]
    return min(range(len(labels)), key=lambda row: (bool(labels[row].ignore[0]), ious[row]))


def _draw_cam(axes: Sequence[Any], part: CachedDataset, row: int, cam: Detector) -> None:
    """The image with its tag, its CAM, and objectness with the CAM box."""
    sample = part.dataset.samples[row]
    (label,), image = sample.tags, cam.read(part, row)
    found = cam.view_outputs(image)[0]
    assert found.maps is not None and found.objectness is not None
    pixels = read_image(sample.path)
    _show(axes[0], pixels, f"1  Tag: {part.dataset.classes[label]}")
    _show(axes[1], pixels, "2  Class activation map", found.maps[label].clip(min=0))
    _show(axes[2], pixels, "3  Objectness and CAM box", np.asarray(1 / (1 + np.exp(-found.objectness)), np.float32))
    _boxes(axes[2], cam.boxes_for_labels(image, np.array([label])), ORANGE)


def _draw_consensus(axis: Any, part: CachedDataset, row: int, labels: tuple[Annotations, ...]) -> None:
    _show(axis, read_image(part.dataset.samples[row].path), "4  Consensus of both predictions")
    names = ("CAM box", "out-of-fold", "pseudo label")
    for own, name, colour in zip(labels, names, (ORANGE, BLUE, GREEN), strict=True):
        _boxes(axis, own.boxes, colour, name)
    axis.legend(loc="lower right", fontsize=8.5, framealpha=0.9)


def _draw_mosaic(axis: Any, samples: Sequence[Sample], scale: int) -> None:
    """Of a few mosaics the one with the most crops."""
    with TemporaryDirectory() as folder:
        mosaics = compose_mosaics(samples, IMAGES, 0, scale, Path(folder))
        if not mosaics:
            raise typer.BadParameter("too few images of this class have a kept label; give an --image of another class")
        chosen = max(mosaics, key=lambda mosaic: len(mosaic.annotations.boxes) if mosaic.annotations else 0)
        _show(axis, read_image(chosen.path), "5  Mosaic of crops with kept labels")
    assert chosen.annotations is not None
    _boxes(axis, chosen.annotations.boxes, GREEN)


def _draw_detections(axis: Any, samples: Sequence[Sample], image: str | None, detector: Detector) -> None:
    """The image given, or the first with two classes."""
    fits = (sample for sample in samples if (sample.id == image if image else len(sample.tags) > 1))
    pixels = read_image(next(fits).path)
    _show(axis, detector.predict(pixels).plot(pixels), "6  Detections on another image")


def _show(axis: Any, pixels: Pixels, title: str, heatmap: FloatArray | None = None) -> None:
    axis.imshow(pixels)
    height, width = pixels.shape[:2]
    if heatmap is not None:
        extent = (0, width, height, 0)
        axis.imshow(heatmap, cmap="jet", alpha=0.5, extent=extent, interpolation="bilinear", vmin=0)
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_title(title, loc="left", fontsize=12)
    axis.axis("off")


def _boxes(axis: Any, boxes: FloatArray, colour: str, name: str | None = None) -> None:
    for x1, y1, x2, y2 in boxes.tolist():
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2.5, label=name))


if __name__ == "__main__":
    typer.run(main)
