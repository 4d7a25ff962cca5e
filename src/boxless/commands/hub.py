"""`boxless card` and `boxless push`: a run for other people."""

from pathlib import Path
from typing import Annotated

import typer

from boxless.errors import BoxlessError
from boxless.files import check_writable, write_text
from boxless.logs import logger

Run = Annotated[Path, typer.Argument(help="Run folder of boxless train.")]


def card(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(help="The file; by default README.md in the run folder; - is standard output.")
    ] = None,
) -> None:
    """Write a model card: data, scores, thresholds, limits and licence, as Markdown that the Hugging Face Hub reads."""
    from boxless.card import model_card

    file = out or run / "README.md"
    text = model_card(run)
    check_writable(file)
    write_text(file, text)
    logger.info("Model card: %s", file)


def push(
    run: Run,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Of the model on the Hub; is made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Only you and your organisation see a new one.")] = False,
) -> None:
    """Upload a run to the Hugging Face Hub: what loading needs, and its model card."""
    from boxless.hub import push

    if repo.startswith("hf:"):
        raise BoxlessError(f"{repo}: write OWNER/NAME alone")
    address = push(run, repo, private=private)
    logger.info("Pushed: %s. Next: boxless predict hf://%s IMAGES --out DIR", address, repo)
