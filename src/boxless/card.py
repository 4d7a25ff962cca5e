"""The model card of a run: Markdown with the metadata that the Hugging Face Hub reads, made from what the run holds.

Source of the metadata: https://huggingface.co/docs/hub/model-cards
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from boxless.config import Config
from boxless.files import expand_user
from boxless.metrics.summary import mean_name
from boxless.run_folder import public_weights, read_config, read_manifest, read_results
from boxless.structures import SHOWN_IMAGE_SCORE, SHOWN_SHARE
from boxless.trust import trust_warning, untrusted_classes
from boxless.wording import counted, training_images_note

LICENCES = frozenset({"apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0", "mit"})
"""Those of backbones that have an identifier on the Hub; https://huggingface.co/docs/hub/repositories-licenses."""
CARD = "README.md"
"""The file of the card, in a run folder and on the Hub."""
METRICS = {"mAP_area": "mAP at IoU 0.5", "CorLoc": "CorLoc", "classification_mAP": "classification mAP"}
"""Scores of an evaluation that a card shows -> their names."""
MOST_TRAINED_ON = 0.01
"""Share of images that the run was trained on above which a result is not among the metadata."""


def model_card(run: str | os.PathLike[str], name: str | None = None) -> str:
    """The model card of a finished or unfinished run.

    It names neither files nor folders of this machine.

    Args:
        run: the run folder. Scores are those that `boxless evaluate` has left in it.
        name: of the model, such as `OWNER/NAME`, by which the card loads it; by default that of the folder.

    Raises:
        BoxlessError: it is no run folder, or a file in it is damaged.
    """
    folder = expand_user(run)
    manifest, config, scores = read_manifest(folder), read_config(folder), read_results(folder, "metrics", "CorLoc")
    title = name or folder.resolve().name
    parts = [
        f"---\n{yaml.safe_dump(metadata(manifest, scores, title), sort_keys=False, allow_unicode=True)}---",
        f"# {_text(title)}",
        _introduction(manifest),
        *_section("Use", _use(title, hub=name is not None)),
        *_section("Training data", _data(manifest)),
        *_section("Scores", _scores(scores)),
        *_section("Thresholds", _thresholds(manifest, config)),
        *_section("Limits", _limits(manifest)),
        *_section("Licence", _licence(public_weights(manifest, config))),
        *_section("Made with", _versions(manifest, config)),
    ]
    return "\n\n".join(parts) + "\n"


def metadata(manifest: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """What the Hub reads: licence, library, task, tags, metrics, and results on other images than those of training."""
    licence = hub_licence(str(manifest["weights"].get("licence")))
    found: dict[str, Any] = {"license": licence}
    if licence == "other":
        found["license_name"] = "see-model-card"
    found |= {"library_name": "boxless", "pipeline_tag": "object-detection"}
    found["tags"] = ["boxless", "object-detection", "weakly-supervised-object-detection", manifest["method"]]
    scores = [one for one in scores if (one.get("training_images") or 0) <= MOST_TRAINED_ON * one["images"]]
    results = [
        {
            "task": {"type": "object-detection"},
            "dataset": {"type": "custom", "name": one["data"]},
            "metrics": [
                {"type": key, "name": words, "value": round(one[key], 4)}
                for key, words in METRICS.items()
                if one.get(key) is not None
            ],
        }
        for one in scores
    ]
    if results:
        found["metrics"] = [key for key in METRICS if any(one.get(key) is not None for one in scores)]
        found["model-index"] = [{"name": name.rpartition("/")[2], "results": results}]
    return found


def hub_licence(stated: str) -> str:
    """The Hub's identifier of the licence that a manifest states; `other` where there is none."""
    word = stated.split()[0].lower() if stated.split() else ""
    return word if word in LICENCES else "other"


def _introduction(manifest: Mapping[str, Any]) -> str:
    names = ", ".join(map(_text, manifest["classes"]))
    return (
        f"An object detector for {counted(len(manifest['classes']), 'class')}: {names}. "
        f"{_supervision(manifest)} It was trained with Boxless, method `{manifest['method']}`."
    )


def _supervision(manifest: Mapping[str, Any]) -> str:
    supervision = manifest["supervision"]
    if supervision == "tags":
        return "It learned from image-level tags alone: nobody drew a box."
    if supervision == "boxes":
        return "It learned from ground-truth boxes; it is a fully supervised upper bound, not a result from tags."
    return f"It learned from {_text(supervision)}."


def _use(name: str, hub: bool) -> Iterator[str]:
    place = f"hf://{name}" if hub else name
    extra = "[hub]" if hub else ""
    yield "In a checkout of Boxless:"
    yield f"```console\npip install -e '.{extra}'\nboxless predict {place} photos --out found\n```"
    yield (
        f'```python\nimport boxless\n\ndetector = boxless.Detector.load("{place}")\n'
        'found = detector.predict("photo.jpg")  # the confident boxes; threshold=0 gives all\n```'
    )
    yield "Weights are safetensors; nothing is unpickled."


def _data(manifest: Mapping[str, Any]) -> Iterator[str]:
    data = manifest["data"]
    yield f"{_text(data['name'])}: {counted(data['images'], 'image')}, fingerprint `{data['digest']}`."
    tags, kept = data.get("tags"), manifest.get("pseudo_labels")
    if isinstance(tags, dict):
        yield _table(["class", "images with it"], [[name, number] for name, number in tags.items()])
    if isinstance(kept, dict):
        yield (
            "Tags became boxes by consensus of predictions; those without it were ignored. Agreement is the mean IoU "
            "of these predictions beyond chance."
        )
        rows = [[name, own["kept"], own["all"], _number(own.get("agreement"))] for name, own in kept.items()]
        yield _table(["class", "boxes kept", "of tags", "agreement"], rows)


def _scores(scores: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not scores:
        yield "Not evaluated."
    for one in scores:
        yield f"On {_text(one['data'])}, {counted(one['images'], 'image')}:"
        if one.get("training_images"):
            yield f"**{_text(training_images_note(one))}.**"
        shown = [key for key in METRICS if one.get(key) is not None]
        rows = [[name, *(_number(row.get(key)) for key in shown)] for name, row in one["classes"].items()]
        rows.append([mean_name(one), *(_number(one[key]) for key in shown)])
        yield _table(["class", *(METRICS[key] for key in shown)], rows)


def _thresholds(manifest: Mapping[str, Any], config: Config) -> Iterator[str]:
    if manifest.get("calibration"):
        yield (
            "Scores are calibrated on tags: of the images whose best box of a class scores 0.8, about 80 % should have "
            "the class, where classes are as frequent as in training. A score says nothing about how well a box fits."
        )
        certain = f"whose best box scores {SHOWN_IMAGE_SCORE:g} or more"
    else:
        yield "Scores rank the boxes of a class; they are no probabilities."
        certain = f"whose image-level score is {SHOWN_IMAGE_SCORE:g} or more"
    yield (
        f"Without a threshold the boxes of classes {certain} are given, of each those that score at least "
        f"{SHOWN_SHARE:.0%} of the best before calibration. Boxes below a score of {config.inference.min_score:g} are "
        f"dropped, of two that overlap by an IoU of {config.inference.nms:g} the lower one."
    )


def _limits(manifest: Mapping[str, Any]) -> Iterator[str]:
    if untrusted := untrusted_classes(manifest):
        yield f"**{_text(trust_warning(untrusted))}.**"
    yield (
        "It knows the classes above and images like those it was trained on. Trained from tags, boxes hold groups or "
        "parts of objects more often than with ground truth, and small objects and further ones of a class in an image "
        "are often missed. Whether it serves a purpose has to be measured on images with boxes for that purpose."
        if manifest["supervision"] != "boxes"
        else "It knows the classes above and images like those it was trained on."
    )


def _licence(weights: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Weights of the backbone: {_text(weights.get('licence'))} ({_text(weights.get('source'))}). It applies to "
        "this model too. Rights in the training images are not known to this card."
    )


def _versions(manifest: Mapping[str, Any], config: Config) -> Iterator[str]:
    made_with = manifest.get("versions")
    rows = list(made_with.items()) if isinstance(made_with, dict) else []
    yield _table(["package", "version"], rows)
    minutes = sum(manifest["seconds"].values()) / 60
    yield f"Backbone {_text(config.backbone.name)}, seed {config.seed}, {minutes:.1f} minutes of training."


def _section(title: str, paragraphs: Iterator[str]) -> list[str]:
    return [f"## {title}", *paragraphs]


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_text(cell) for cell in line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _text(value: Any) -> str:
    """A name from the data as text of Markdown: no markup, no second line."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*[]<>|#" else letter for letter in text)
