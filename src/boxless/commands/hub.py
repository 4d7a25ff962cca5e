"""`boxless card` and `boxless push`: a run for other people."""

from pathlib import Path
from typing import Annotated

import typer

from boxless.commands.options import Run
from boxless.errors import BoxlessError
from boxless.files import check_writable, expand_user, write_text
from boxless.logs import logger


def card(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(help="By default README.md in the run folder, which boxless push uploads; - is standard output."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="By which it is loaded from the Hub once it is pushed.")
    ] = None,
) -> None:
    """Write a model card: data, scores, thresholds, limits and licence, as Markdown that the Hugging Face Hub reads."""
    from boxless.card import CARD, model_card

    file = expand_user(out or run / CARD)
    text = model_card(run, name)
    if file.is_file() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise BoxlessError(f"{file}: exists with another text, perhaps yours; delete it, or choose another --out")
    check_writable(file)
    write_text(file, text)
    logger.info("Model card: %s", file)


def push(
    run: Run,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub, which is made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Only you and your organisation see a new one.")] = False,
) -> None:
    """Upload a run to the Hugging Face Hub: what loading needs, and a model card, yours if there is a README.md."""
    from boxless.hub import push

    if repo.startswith("hf:"):
        raise BoxlessError(f"{repo}: write OWNER/NAME alone")
    address = push(run, repo, private=private)
    logger.info("Pushed: %s. Next: boxless predict hf://%s IMAGES --out DIR", address, repo)
