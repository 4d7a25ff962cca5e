"""Runs on the Hugging Face Hub: pushed with a model card, and loaded by name.

Only safetensors, YAML and JSON are downloaded and read; nothing is unpickled.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from boxless.config import Config
from boxless.errors import BoxlessError, in_one_line
from boxless.files import expand_user
from boxless.network import load_network
from boxless.run_folder import CONFIG, MANIFEST, public_weights, read_config, read_manifest
from boxless.run_path import HubModel, parse_repo
from boxless.yaml_keys import ValueDumper

LOADED = (MANIFEST, CONFIG, "*.safetensors")
"""What is downloaded of a model: all that loading reads."""
OF_THIS_MACHINE = ("command", "sample_images", "skipped")
"""Keys of a manifest that name files of the machine that trained; they are not uploaded."""


def fetch(model: HubModel) -> Path:
    """The run folder of a model on the Hub, downloaded unless it is in the Hub's cache.

    Raises:
        BoxlessError: huggingface_hub is not installed, there is no such model, it is none of Boxless, or the Hub cannot
            be reached.
    """
    hub = _library()
    with _explained(f"hf://{model.repo}", model.revision):
        folder = Path(hub.snapshot_download(model.repo, revision=model.revision, allow_patterns=list(LOADED)))
    if not (folder / MANIFEST).is_file():
        raise BoxlessError(f"hf://{model.repo}: not a model of Boxless: it has no {MANIFEST}; boxless push makes one")
    return folder


def push(run: str | os.PathLike[str], repo: str, *, private: bool = False) -> str:
    """Upload a finished run to the Hub: what loading needs, and a model card. Files of this machine are not named.

    The card is the run folder's `README.md`, which `boxless card` writes and a person may change, else a new one.

    Args:
        run: the run folder.
        repo: `OWNER/NAME`; is made if there is none.
        private: refuse a public repository; one that is made is private.

    Returns:
        The address of the model.

    Raises:
        BoxlessError: huggingface_hub is not installed, the run cannot be loaded or is a part of another one, nobody is
            logged in, the repository is public though `private` is asked for, or the Hub refuses or cannot be reached.
    """
    hub, model = _library(), parse_repo(repo)
    if model.revision is not None:
        raise BoxlessError(f"{repo}: a run is pushed to the newest revision; write OWNER/NAME")
    folder = expand_user(run)
    contents = uploaded(folder, model.repo)
    operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
    with _explained(model.repo):
        api = hub.HfApi()
        address = api.create_repo(model.repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(model.repo).private:
            raise BoxlessError(f"{model.repo}: is public; push it without --private, or make it private on the Hub")
        api.create_commit(model.repo, operations, commit_message=f"Boxless: {folder.resolve().name}")
    return str(address)


def uploaded(run: Path, repo: str) -> dict[str, bytes | str]:
    """The files that `push` uploads, by name: their content, or the path of a file.

    Raises:
        BoxlessError: the run cannot be loaded, or is a part of another one.
    """
    # The card is of the metrics too, whose code takes a while to import.
    from boxless.card import CARD

    manifest, config = read_manifest(run), read_config(run)
    load_network(run, config, manifest)
    if any(name.startswith("..") for name in manifest["files"].values()):
        raise BoxlessError(f"{run}: a part of another run, whose weights it shares; push that run")
    return {
        CARD: _card(run, repo).encode(),
        MANIFEST: json.dumps(_public(manifest, config), indent=1, ensure_ascii=False).encode(),
        CONFIG: yaml.dump(_public_config(config), Dumper=ValueDumper, sort_keys=False).encode(),
        **{name: str(run / name) for name in manifest["files"].values()},
    }


def _card(run: Path, repo: str) -> str:
    """The card in the run folder where a person has changed it, else a new one, which loads the model from the Hub."""
    from boxless.card import CARD, model_card

    file = run / CARD
    own = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    return model_card(run, repo) if own in (None, model_card(run)) else own


def _public(manifest: Mapping[str, Any], config: Config) -> dict[str, Any]:
    kept = {key: value for key, value in manifest.items() if key not in OF_THIS_MACHINE}
    return {**kept, "weights": public_weights(manifest, config)}


def _public_config(config: Config) -> dict[str, Any]:
    # Weights of a file are in the run; of its path only the name is of use.
    weights = Path(config.backbone.weights).name
    backbone = config.backbone.model_copy(update={"weights": weights})
    return config.model_copy(update={"backbone": backbone}).model_dump(mode="json")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise BoxlessError("huggingface_hub is not installed: in the checkout pip install -e '.[hub]'") from None
    return huggingface_hub


@contextmanager
def _explained(name: str, revision: str | None = None) -> Iterator[None]:
    """The library's errors, which share no class, as one line with the fix."""
    from huggingface_hub import errors

    try:
        yield
    except BoxlessError:
        raise
    except errors.RevisionNotFoundError:
        raise BoxlessError(f"{name}: has no revision {revision}; without @{revision} the newest is loaded") from None
    except errors.RepositoryNotFoundError:
        raise BoxlessError(
            f"{name}: there is no such model, or it is private or gated: check the name; hf auth login, or HF_TOKEN, "
            "gives access to your own"
        ) from None
    except errors.LocalTokenNotFoundError:
        raise BoxlessError(f"{name}: not logged in: hf auth login, or set HF_TOKEN") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise BoxlessError(f"{name}: not logged in: hf auth login, or set HF_TOKEN") from None
        if status == 403:
            raise BoxlessError(f"{name}: this account may not do that; take a token with write access") from None
        raise BoxlessError(f"{name}: the Hub refused ({in_one_line(error)})") from None
    except Exception as error:  # Of the network, of the disk and of names.
        raise BoxlessError(f"{name}: the Hub cannot be reached ({in_one_line(error)}); try again") from None
