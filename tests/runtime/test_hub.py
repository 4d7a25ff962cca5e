"""Runs on the Hugging Face Hub, and their model cards; the hub is a stand-in on this machine."""

import builtins
import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import yaml
from hub_server import TOKEN, Hub, serve_hub
from random_runs import CALIBRATION, CLASSES, random_run
from running import boxless as run_boxless
from safetensors.torch import load_file

from boxless.card import hub_licence, model_card
from boxless.detector import Detector
from boxless.errors import BoxlessError
from boxless.files import write_json
from boxless.hub import push
from boxless.loading import load_predictor
from boxless.run_folder import read_manifest
from boxless.run_path import HubModel, on_hub


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = random_run(tmp_path_factory.mktemp("hub") / "first", "seeded", images=[Path("/home/me/photos/a.jpg")])
    manifest = read_manifest(folder) | {"command": "boxless train /home/me/tags.csv", "skipped": {"/home/me/b": "x"}}
    manifest["data"]["tags"] = {"cat": 3, "großer hund": 2, "owl": 1}
    kept = {"kept": 2, "all": 3, "agreement": 0.7}
    manifest["pseudo_labels"] = dict.fromkeys(CLASSES, kept) | {"owl": kept | {"agreement": 0.1}}
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub, an empty cache, and nobody logged in."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, value in {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN_PATH": str(tmp_path / "token")}.items():
        monkeypatch.setattr(constants, name, value)
    with serve_hub() as hub:
        # What HF_ENDPOINT sets, which is read once for a process.
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_a_run_that_was_pushed_is_loaded_and_predicts_the_same(
    run: Path, hub: Hub, logged_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_boxless(monkeypatch, "push", run, "me/cats") == 0
    files = hub.repos["me/cats"]
    weights = set(read_manifest(run)["files"].values())
    assert set(files) == {"README.md", "manifest.json", "config.yaml"} | weights
    assert all(content.count(b"/home/me") == 0 for content in files.values())
    assert files["README.md"].decode() == model_card(run, "me/cats")
    # What a stranger puts beside it is not downloaded.
    files |= {"checkpoint.pt": b"pickle", "pytorch_model.bin": b"pickle", "evil.py": b"raise SystemExit"}
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    expected = Detector.load(run, "cpu").predict(pixels, 0)
    assert len(expected) > 0
    # The command line makes a path of it.
    for place in ("hf://me/cats", "hf://me/cats@main", Path("hf://me/cats")):
        detector = load_predictor(place)
        found = detector.predict(pixels, 0)
        assert (detector.name, detector.classes) == ("cats", tuple(CLASSES))
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
    assert not [one for one in hub.requests if any(name in one for name in ("checkpoint", ".bin", ".py"))]
    cached = {path.name for path in (Path(hub_cache()) / "models--me--cats" / "snapshots").rglob("*") if path.is_file()}
    assert cached == {"manifest.json", "config.yaml", *(Path(name).name for name in weights)}


def test_a_card_that_a_person_has_changed_is_kept_and_pushed(
    run: Path, hub: Hub, logged_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    shutil.copytree(run, own)
    for _ in range(2):
        assert run_boxless(monkeypatch, "card", own, "--name", "me/cats") == 0
    card = own / "README.md"
    assert card.read_text() == model_card(own, "me/cats")
    # One without the name on the Hub gets it.
    card.write_text(model_card(own))
    push(own, "me/dogs")
    assert hub.repos["me/dogs"]["README.md"].decode() == model_card(own, "me/dogs")
    card.write_text(card.read_text() + "\nThe photos are mine.\n")
    assert run_boxless(monkeypatch, "card", own, "--name", "me/cats") == 1
    push(own, "me/cats")
    assert hub.repos["me/cats"]["README.md"].decode().endswith("\nThe photos are mine.\n")


def test_the_path_of_weights_is_not_published(run: Path, hub: Hub, logged_in: None, tmp_path: Path) -> None:
    own, file = tmp_path / "own", "/home/me/acme/w.safetensors"
    shutil.copytree(run, own)
    manifest = read_manifest(own)
    write_json(own / "manifest.json", manifest | {"weights": manifest["weights"] | {"source": f"timm x, {file}"}})
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["backbone"]["weights"] = file
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    push(own, "me/cats")
    assert all(content.count(b"/home/me") == 0 for content in hub.repos["me/cats"].values())
    assert b"timm x, w.safetensors" in hub.repos["me/cats"]["README.md"]
    assert b"timm x, w.safetensors" in hub.repos["me/cats"]["manifest.json"]


def hub_cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def test_pushing_again_replaces_and_private_stays_private(
    run: Path, hub: Hub, logged_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push(run, "me/cats", private=True) == push(run, "me/cats") == f"{hub.address}/me/cats"
    assert hub.private == {"me/cats"}
    Detector.load("hf://me/cats", "cpu")
    # What is in the cache stays there.
    monkeypatch.delenv("HF_TOKEN")
    Detector.load("hf://me/cats", "cpu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(BoxlessError, match="hf://me/cats: there is no such model, or it is private"):
        Detector.load("hf://me/cats", "cpu")


def test_a_public_repository_is_not_pushed_to_as_a_private_one(run: Path, hub: Hub, logged_in: None) -> None:
    push(run, "me/cats")
    files = dict(hub.repos["me/cats"])
    with pytest.raises(BoxlessError, match="me/cats: is public; push it without --private"):
        push(run, "me/cats", private=True)
    assert hub.repos["me/cats"] == files and not hub.private


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://me/dogs", r"^hf://me/dogs: there is no such model, or it is private or gated: check the name; hf auth"),
        ("hf://me/else@v9", r"^hf://me/else: has no revision v9; without @v9 the newest is loaded$"),
        ("hf://me/else", r"^hf://me/else: not a model of Boxless: it has no manifest.json; boxless push makes one$"),
        ("hf://dogs", r"^'dogs' names no model on the Hub: write OWNER/NAME"),
        ("hf://../x", "names no model on the Hub"),
        ("hf://me/x/y", "names no model on the Hub"),
        ("hf://me/dogs@", "names no model on the Hub"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(place: str, message: str, hub: Hub) -> None:
    hub.repos["me/else"] = {"config.json": b"{}", "model.safetensors": b""}
    with pytest.raises(BoxlessError, match=message) as error:
        Detector.load(place, "cpu")
    assert "\n" not in str(error.value)


def test_commands_that_need_a_run_folder_say_so() -> None:
    with pytest.raises(BoxlessError, match=r"^hf://me/cats: .* needs the run folder on the machine that pushed it"):
        read_manifest(Path("hf://me/cats"))


def test_pushing_needs_a_login_a_right_and_a_whole_run(
    run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_boxless(monkeypatch, "push", run, "me/cats") == 1
    assert "me/cats: not logged in: hf auth login, or set HF_TOKEN" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(BoxlessError, match="others/cats: this account may not do that"):
        push(run, "others/cats")
    with pytest.raises(BoxlessError, match="'cats' names no model"):
        push(run, "cats")
    shutil.copytree(run, tmp_path / "half")
    manifest = json.loads((run / "manifest.json").read_text())
    write_json(tmp_path / "half" / "manifest.json", manifest | {"finished": False})
    with pytest.raises(BoxlessError, match="the training has not ended"):
        push(tmp_path / "half", "me/cats")
    (tmp_path / "half" / "inner").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "half" / "inner")
    files = {part: f"../{name}" for part, name in manifest["files"].items()}
    write_json(tmp_path / "half" / "inner" / "manifest.json", manifest | {"files": files})
    with pytest.raises(BoxlessError, match="inner: a part of another run"):
        push(tmp_path / "half" / "inner", "me/cats")
    assert hub.repos == {}


def test_without_the_library_it_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for work in (lambda: push(run, "me/cats"), lambda: Detector.load("hf://me/cats")):
        with pytest.raises(
            BoxlessError, match=r"huggingface_hub is not installed: in the checkout pip install -e '\.\[hub\]'"
        ):
            work()


def test_paths_are_no_models() -> None:
    assert on_hub("runs/first") is None and on_hub(Path("hf") / "x") is None
    assert on_hub("hf://a/b@v1") == HubModel("a/b", "v1") and on_hub(Path("hf://a/b")) == HubModel("a/b")
    assert on_hub(PureWindowsPath("hf://a/b")) == HubModel("a/b")


def test_a_card_says_what_the_run_knows(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import ModelCard

    copy = tmp_path / "first"
    shutil.copytree(run, copy)
    classes = {name: {"mAP_area": 0.25, "CorLoc": 0.5, "classification_mAP": 0.75} for name in CLASSES}
    means = {"mAP_area": 0.61239, "CorLoc": 0.5, "classification_mAP": None}
    write_json(copy / "metrics-zoo-val.json", {"data": "zoo val", "images": 40, "classes": classes, **means})
    assert run_boxless(monkeypatch, "card", copy, "--out", tmp_path / "card.md") == 0
    text = (tmp_path / "card.md").read_text()
    assert text == model_card(copy)
    for line in (
        "# first",
        "An object detector for 3 classes: cat, großer hund, owl. It learned from image-level tags alone",
        "drawn: 1 image, fingerprint",
        "| großer hund | 2 |",
        "| owl | 2 | 3 | 0.100 |",
        "On zoo val, 40 images:",
        "| mean | 0.612 | 0.500 |",
        "Scores are calibrated on tags",
        "Boxes of these classes may be wrong",
        "owl (0.10)",
        "Weights of the backbone: none needed: random (random).",
        "| boxless | 0.1.0 |",
    ):
        assert line in text, line
    assert "/home/me" not in text and "cat (0" not in text
    # The Hub's own library reads its metadata.
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("other", "boxless", "object-detection")
    assert data.metrics == ["mAP_area", "CorLoc"]
    assert [(one.metric_type, one.metric_value, one.dataset_name) for one in data.eval_results] == [
        ("mAP_area", 0.6124, "zoo val"),
        ("CorLoc", 0.5, "zoo val"),
    ]


def test_names_of_the_data_are_text_in_a_card(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "first"
    shutil.copytree(run, copy)
    manifest = json.loads((run / "manifest.json").read_text())
    hostile = ["<img src=x>", "a|b\n# c", "[x](http://e.x)"]
    manifest |= {"classes": hostile, "pseudo_labels": None, "supervision": "boxes"}
    manifest["calibration"] = dict.fromkeys(hostile, CALIBRATION["cat"])
    manifest["data"] |= {"name": "---\nlicense: mit", "tags": dict.fromkeys(hostile, 1)}
    write_json(copy / "manifest.json", manifest)
    text = model_card(copy)
    assert r"\<img src=x\>, a\|b \# c, \[x\](http://e.x)" in text and "fully supervised upper bound" in text
    assert text.count("\n---\n") == 1 and yaml.safe_load(text.split("---\n")[1])["license"] == "other"


@pytest.mark.parametrize(
    ("stated", "identifier"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("BSD-3-Clause (torchvision)", "bsd-3-clause"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("not known: weights of x.safetensors", "other"),
        ("", "other"),
    ],
)
def test_licences_have_the_identifiers_of_the_hub(stated: str, identifier: str) -> None:
    assert hub_licence(stated) == identifier


def test_weights_that_are_uploaded_are_safetensors(run: Path) -> None:
    for name in read_manifest(run)["files"].values():
        assert load_file(run / name)
