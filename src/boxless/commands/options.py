"""Arguments and options that several commands have."""

import csv
from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="Run folder of boxless train.")]
Trained = Annotated[Path, typer.Argument(help="Run folder of boxless train, or file of boxless export.")]
Data = Annotated[
    Path, typer.Argument(help="Table (.csv, .tsv), class folders, VOC, COCO, YOLO or Label Studio; see docs/tags.md.")
]
Split = Annotated[str | None, typer.Option(help="Part of the data; by default trainval, else train or the only one.")]
Classes = Annotated[
    str | None, typer.Option(help="Only these, separated by commas; a name with a comma in quotation marks.")
]
Labels = Annotated[
    Path | None, typer.Option(help="Reviewed labels: .jsonl of boxless review, COCO, Label Studio, YOLO, VOC, a table.")
]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as training.epochs=8.")
]
Method = Annotated[
    str | None, typer.Option(help="seeded (default), student, cam, oquab, wsddn, contextlocnet, oicr, pcl, mist.")
]
Backbone = Annotated[
    str | None,
    typer.Option(help="efficientnet_lite0, _lite1, _lite2, alexnet, vgg16, resnet50, a timm or hf-hub: name."),
]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file laid over the method's preset.")]


def class_names(classes: str | None) -> list[str] | None:
    """The names in `--classes`; None where it is not given."""
    if classes is None:
        return None
    # As in CSV: the name of a class that holds a comma is put in quotation marks.
    rows = csv.reader(classes.splitlines(), skipinitialspace=True)
    return [name for row in rows for cell in row if (name := cell.strip())]
