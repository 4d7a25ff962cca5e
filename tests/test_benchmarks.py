"""Benchmarks run on next to nothing; what they print is looked at, what they measure is not."""

import importlib
import json
import subprocess
import sys
import time
from itertools import chain, repeat
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from running import QUICK, SEEDED, SMALL

import boxless
from boxless.cache import entry, open_store, save_array
from boxless.datasets.labels import with_labels
from boxless.images import content_key, read_image
from boxless.methods import fast_rcnn
from boxless.postprocess import Selection

FOLDER = Path(__file__).parent.parent / "benchmarks"


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


def table(text: str, title: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    lines = text[text.index(f"| {title}".rstrip() + " |") :].split("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_extract(demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    extract = benchmark("extract", monkeypatch)
    monkeypatch.setattr(extract, "SIDE", 256)
    monkeypatch.setattr(extract, "WORKERS", 0)
    extract.main(demo, images=2, repeats=1)
    library, plain = table(capsys.readouterr().out, "")
    assert (library[0], plain[0], plain[4]) == ("library", "plain", "1.00")
    assert float(library[4]) == pytest.approx(float(library[2]) / float(plain[2]), rel=0.1)


def test_train(demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    train = benchmark("train", monkeypatch)
    small = ("backbone.name=regnety_002", "proposals.generator=grid", "head.hidden=[32]")
    monkeypatch.setattr(train, "SINGLE_SCALE", (*train.SINGLE_SCALE, *small))
    train.main(demo, images=1, end_to_end=1, repeats=1)
    rows = table(capsys.readouterr().out, "")
    assert [row[0] for row in rows] == ["`seeded`", "`contextlocnet`", "`wsddn`", train.END_TO_END]
    assert rows[-1][3] == "1" and all(float(row[2]) > 0 for row in rows)


def test_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    store, maps = open_store("features", {}), np.zeros((2, 256, 50, 20), np.uint8)
    maps[:, ::4] = np.random.default_rng(0).integers(40, 60, (2, 64, 50, 20))
    for number, one in enumerate(maps):
        save_array(entry(store, f"ab{number}"), one)
    benchmark("cache", monkeypatch).main(maps=9)
    text = capsys.readouterr().out
    assert text.startswith("2 maps, 0.75 of their numbers are 0")
    sizes = {row[0]: float(row[1]) for row in table(text, "Zstandard")}
    assert len(sizes) == 6 and sizes["none"] == pytest.approx(256 * 50 * 20 / 1e6, abs=0.006)
    assert sizes["level 1, ours"] < sizes["none"] / 3


def test_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    busy, runs = benchmark("busy", monkeypatch), list[str]()
    monkeypatch.setattr(busy, "make_demo", lambda folder, seed: folder / "data")

    def trained(data: Path, run: Path, policy: str, options: list[str]) -> float:
        assert options == ["training.epochs=2"]
        runs.append(run.name)
        return {"asleep, ours": (2, 3), "spinning": (2, 8)}[policy][not run.name.endswith("0")]

    monkeypatch.setattr(busy, "trained", trained)
    busy.main(["training.epochs=2"], busy=1, repeats=2)
    asleep, spinning = table(capsys.readouterr().out, "threads wait")
    assert asleep == ["asleep, ours", "2.0 (2.0-2.0)", "3.0 (3.0-3.0)", "1.50 (1.50-1.50)"]
    assert spinning[3] == "4.00 (4.00-4.00)"
    # The first one, which fills the cache, is not counted.
    assert len(runs) == len(set(runs)) == 1 + 2 * 4


def test_predict(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    predict = benchmark("predict", monkeypatch)
    boxless.train(demo, tmp_path / "run", method="wsddn", split="train", options=[*QUICK, "training.epochs=1"])
    predict.main(tmp_path / "run", demo, images=2, repeats=1)
    text = capsys.readouterr().out
    own, opencv = table(text, "proposals")
    assert float(own[2]) > float(opencv[2]) == 1
    parts = table(text, "part, on one thread")
    assert [row[0] for row in parts] == list(predict.PARTS)
    assert sum(int(row[2].strip("%")) for row in parts) == pytest.approx(100, abs=3)


def test_protocols(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    protocols = benchmark("protocols", monkeypatch)
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # `run` changes it.
    small = ("backbone.name=regnety_002", "views.scales=[64,96]", "inference.views.scales=[96]", "head.hidden=[8]")
    monkeypatch.setattr(protocols, "SETTINGS", (*protocols.SETTINGS, *small))
    words = [str(demo), "train", "", "3", "oquab_alexnet"]
    with pytest.raises(SystemExit):
        protocols.run("estimate", *words)
    estimated = json.loads(capsys.readouterr().out)
    # A convolution of 3 x 3 over 368 channels, and six classes.
    assert (
        estimated["weights"] == 368 * 9 * 8 + 8 + 8 * 6 + 6 and estimated["memory"] > 1e8 and estimated["seconds"] > 0
    )
    protocols.run("train", *words)
    assert json.loads(capsys.readouterr().out)["seconds"] > 0
    # Printed beside each other, and each part measured once, also where a call was interrupted between them.
    parts = {"estimate": {"seconds": 1.5, "memory": 2e9, "weights": 1234}, "train": {"seconds": 2.25, "memory": 3e9}}
    monkeypatch.setattr(protocols, "measured", lambda words, part: parts.pop(part))
    with pytest.raises(KeyError, match="train"):
        taken = parts.pop("train")
        protocols.main(demo, configs="oquab_alexnet", steps=5, out=tmp_path)
    parts["train"] = taken
    capsys.readouterr()
    for steps in (5, 20):
        protocols.main(demo, configs="oquab_alexnet", steps=steps, out=tmp_path)
        (row,) = table(capsys.readouterr().out, "configuration")
        assert row == ["`oquab_alexnet.yaml`", "1,234", "5", "1.50", "2.25", "2.0", "3.0"]


# Methods.


def test_methods_are_compared_and_one_is_chosen_without_boxes(
    demo: Path,
    tmp_path: Path,
    short_training: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    methods, choosing = benchmark("methods", monkeypatch), benchmark("choosing", monkeypatch)
    quick, train, trained = {"cam": SMALL, "wsddn": QUICK, "seeded": SEEDED}, boxless.train, []

    def quickly(*words: object, method: str, options: list[str], **rest: object) -> boxless.Detector:
        trained.append(method)
        return train(*words, method=method, options=[*quick[method], *options], **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(boxless, "train", quickly)
    methods.main(demo, methods="cam,wsddn,upper-bound", seeds="3", out=tmp_path)
    rows = table(capsys.readouterr().out, "method")
    assert trained == ["cam", "wsddn", "seeded"]
    scores = dict(zip(methods.COLUMNS, rows[0][1:], strict=False))
    wanted = boxless.evaluate(boxless.Detector.load(tmp_path / demo.name / "cam-3"), demo, "val")
    for name in methods.SCORES:
        assert scores[name] == f"{wanted[name]:.3f}", name
    assert [row[0] for row in rows] == ["`cam`", "`wsddn`", "`upper-bound`"]
    known = [tmp_path / demo.name / f"{name}-3" / "benchmark-val.json" for name in ("cam", "wsddn", "upper-bound")]
    reached = [json.loads(path.read_text(encoding="utf-8"))["mAP_11point"] for path in known]
    assert [row[-1] for row in rows] == [f"{score / reached[2]:.2f}" for score in reached]
    # The upper bound is left out: the two others agree with each other equally well.
    choosing.main(demo, tmp_path / demo.name, seed=3, images=5)
    text = capsys.readouterr().out
    (name, consensus, score, _), (_, other, _, _) = table(text, "method")
    assert consensus == other and score == rows[["`cam`", "`wsddn`"].index(name)][1]
    assert f"Chosen without boxes: {name.strip('`')}; " in text and "5 images" in text


def test_ablation_leaves_out_one_part_at_a_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    ablation, states = benchmark("ablation", monkeypatch), list[list[object]]()
    power, selection = fast_rcnn.IMAGE_SCORE_POWER, Selection(min_score=0, nms=0.5, vote=True, max_boxes=1)

    def load(run: Path) -> SimpleNamespace:
        return SimpleNamespace(name=run.name, classes=("a",), selection=selection)

    def evaluate(detector: SimpleNamespace, _: object) -> dict[str, float]:
        limits = detector.selection
        kept = [power == fast_rcnn.IMAGE_SCORE_POWER, limits.vote]
        states.append(kept)
        return {"mAP_area": 0.1 * sum(kept), "CorLoc": 0.5 if detector.name == "one" else 0.7}

    known = SimpleNamespace(Detector=SimpleNamespace(load=load), load_dataset=lambda *_: None, evaluate=evaluate)
    monkeypatch.setattr(ablation, "boxless", known)
    ablation.main(Path("data"), [Path("one"), Path("two")])
    rows = table(capsys.readouterr().out, "| mAP_area")
    assert states[::2] == states[1::2] == [[True, True], [False, True], [True, False]]
    assert rows[0][1:] == ["0.200", "0.600", "0.000 (0.000-0.000)", "0.000 (0.000-0.000)"]
    assert rows[1][1:] == ["0.100", "0.600", "-0.100 (-0.100--0.100)", "0.000 (0.000-0.000)"]


def test_that_method_is_chosen_which_the_others_agree_with(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    choosing = benchmark("choosing", monkeypatch)
    # Of two objects side by side: the left one and half of the other, the left one, its upper half.
    boxes = {"group": [0, 0, 0.75, 1], "good": [0, 0, 0.5, 1], "part": [0, 0, 0.5, 0.5]}
    for number, name in enumerate(boxes):
        (tmp_path / f"{name}-0").mkdir()
        scores = f'{{"mAP_11point": {number / 4}, "CorLoc": 0.5}}'
        (tmp_path / f"{name}-0" / "benchmark-val.json").write_text(scores)
    monkeypatch.setattr(choosing.Detector, "load", lambda run: SimpleNamespace(classes=None))
    # The same again in the other corner, so that chance brings little.
    both = {name: np.array([box, [1 - box[2], 1 - box[3], 1 - box[0], 1 - box[1]]]) for name, box in boxes.items()}
    monkeypatch.setattr(choosing, "tag_boxes", lambda detector, dataset, name: both[name].astype(np.float32))
    choosing.main(demo, tmp_path)
    text = capsys.readouterr().out
    # IoU with the same and with the other image's: good-group 2/3, 1/4; good-part 1/2, 0; group-part 1/3, 1/7. Beyond
    # chance that is 5/9, 1/2 and 2/9.
    assert [row[:3] for row in table(text, "method")] == [
        ["`good`", "0.528", "0.250"],
        ["`group`", "0.389", "0.000"],
        ["`part`", "0.361", "0.500"],
    ]
    assert "Chosen without boxes: good; with the boxes of val: part; that costs 0.250 mAP" in text


# Memory.


def test_a_commented_image_is_a_new_one_that_looks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory = benchmark("memory", monkeypatch)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.jpg")
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(memory.commented(tmp_path / "0.jpg", f"image {number}"))
        np.testing.assert_array_equal(read_image(tmp_path / f"{number}.jpg"), read_image(tmp_path / "0.jpg"))
    assert len({content_key(path) for path in tmp_path.iterdir()}) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the largest process so far is known")
def test_peaks_of_memory_are_those_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory = benchmark("memory", monkeypatch)
    code = "import time; a = bytearray(b'x') * 200_000_000; time.sleep(0.5); del a; time.sleep(0.5)"
    resident, anonymous = memory.watched(subprocess.Popen([sys.executable, "-c", code]))
    assert 200 <= anonymous <= resident <= 260


def test_cost_is_told_by_size_and_stage(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    memory = benchmark("memory", monkeypatch)
    # Training itself is tested elsewhere; this one only leaves behind what one does.
    code = """
import json, os, sys, boxless
from pathlib import Path
_, command, table, _, out, option = sys.argv
images = len(boxless.load_dataset(table))
for kind, size in (("proposals", 10_000), ("features", 2_000_000)):
    folder = Path(os.environ["BOXLESS_CACHE"]) / kind
    folder.mkdir(parents=True)
    (folder / "all.npy").write_bytes(bytes(size * images))
Path(out).mkdir()
others = {"method": "cam", "supervision": "tags", "classes": [], "data": {}, "weights": {}, "finished": True}
(Path(out) / "manifest.json").write_text(json.dumps({"format": %d, "seconds": {"a": 3 * images}, **others}))
assert (command, option) == ("train", "seed=1")
"""
    monkeypatch.setattr(memory, "TRAIN", code % boxless.run_folder.FORMAT)
    clock = chain([0, 60, 0, 120], repeat(0))
    monkeypatch.setattr(memory, "time", SimpleNamespace(sleep=time.sleep, perf_counter=lambda: next(clock)))
    memory.main(demo, ["seed=1"], sizes="12,18", out=tmp_path / "out")
    text = capsys.readouterr().out
    assert [[row[0], row[1], *row[4:]] for row in table(text, "images")] == [
        ["12", "1.0", "0.010", "2.000"],
        ["18", "2.0", "0.010", "2.000"],
    ]
    assert table(text, "minutes (share)") == [["12", "0.6 (60%)", "0.4 (40%)"], ["18", "0.9 (45%)", "1.1 (55%)"]]
    assert "Straight line: -1.0 minutes and 166.67 for every 1,000 images." in text
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["12.json", "18.json", "memory.png"]
    # What is known is not measured again.
    monkeypatch.setattr(memory, "TRAIN", "raise SystemExit(1)")
    memory.main(demo, ["seed=1"], sizes="12", out=tmp_path / "out")
    with pytest.raises(SystemExit):
        memory.main(demo, ["seed=2"], sizes="12", out=tmp_path / "out")


def test_mixed(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A simulated person boxes all objects of the images drawn; nothing else of the boxes passes on."""
    mixed = benchmark("mixed", monkeypatch)
    splits, trained = tuple(boxless.load_dataset(demo, split) for split in ("train", "val")), []

    def train(data: boxless.Dataset, run: Path, *, labels: Path, seed: int, **settings: object) -> str:
        given = [one for one in with_labels(data.tags_only(), labels).samples if one.given is not None]
        trained.append((run.name, {one.id: one for one in given}))
        run.mkdir()
        return run.name

    monkeypatch.setattr(mixed, "load", lambda *arguments: splits)
    monkeypatch.setattr(mixed, "measured", lambda *arguments: {"tags": {"mAP_area": 0.2}, "boxes": {"mAP_area": 0.8}})
    monkeypatch.setattr(mixed, "boxless", SimpleNamespace(train=train, evaluate=lambda *arguments: {"mAP_area": 0.4}))
    mixed.main(sets="demo", boxed="0,1,3", seeds="0,1", out=tmp_path)
    (row,) = table(capsys.readouterr().out, "set")
    assert row == ["demo", "0.200 (0.200-0.200), 0.25", *["0.400 (0.400-0.400), 0.50"] * 2, "0.800 (0.800-0.800)"]
    data = {sample.id: sample for sample in splits[0].samples}
    assert [name for name, _ in trained] == [f"demo-seeded-boxed-{n}-all-{seed}" for seed in (0, 1) for n in (1, 3)]
    for (_, few), (_, more) in (trained[:2], trained[2:]):
        assert 0 < len(few) <= len(splits[0].classes) and few.keys() < more.keys()
        for name, sample in more.items():
            own = data[name].annotations
            assert own is not None and sample.given is not None
            np.testing.assert_array_equal(sample.given.right.boxes, own.boxes[~own.ignore])
            np.testing.assert_array_equal(sample.given.right.labels, own.labels[~own.ignore])
            assert sample.given.complete == set(own.labels[~own.ignore].tolist()) - set(own.labels[own.ignore].tolist())
    for label in range(len(splits[0].classes)):
        assert sum(label in sample.tags for sample in trained[1][1].values()) >= 3
    assert trained[0][1].keys() != trained[2][1].keys()
