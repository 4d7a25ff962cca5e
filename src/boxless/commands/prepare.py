"""`boxless prepare`: proposals and feature maps of a training, by any number of machines that share a cache."""

from typing import Annotated

import typer

from boxless.commands.options import (
    Backbone,
    Classes,
    ConfigFile,
    Data,
    Labels,
    Method,
    Settings,
    Split,
    class_names,
)
from boxless.logs import logger
from boxless.share import parse_share
from boxless.wording import counted


def prepare(
    data: Data,
    settings: Settings = None,
    labels: Labels = None,
    method: Method = None,
    backbone: Backbone = None,
    split: Split = None,
    classes: Classes = None,
    config: ConfigFile = None,
    shards: Annotated[
        str | None, typer.Option(metavar="i/n", help="Every n-th image from the i-th on; by default all.")
    ] = None,
) -> None:
    """Fill the cache for boxless train, whose options it takes: proposals and feature maps of all images or a share."""
    share = parse_share(shards)
    from boxless.pipeline import prepare

    cached = prepare(
        data,
        labels=labels,
        method=method,
        split=split,
        classes=class_names(classes),
        config=config,
        options=settings or [],
        backbone=backbone,
        share=share,
    )
    logger.info(
        "Cached: %s. Next, once all shares are: boxless train with the same options", counted(len(cached), "image")
    )
