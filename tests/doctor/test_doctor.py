"""A dataset without problems, and the same with one fault each: only this fault is reported."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import boxless
from boxless.cli import main
from boxless.datasets import load_dataset
from boxless.doctor.tags import Table, check_co_occurrence
from boxless.errors import BoxlessError
from boxless.images import read_image
from boxless.structures import Annotations, Dataset

CLASSES = ("bolt", "gear", "spring")
TRAIN, VAL = 60, 20


class TagTable:
    """Different images of coloured clouds, and their tags: `rows` maps a file name to its split and tags."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, tuple[str, set[str]]] = {}
        root.mkdir()

    def add(self, name: str, split: str, tags: set[str], image: np.ndarray | None = None) -> Path:
        """Write one more image, a new one if none is given."""
        self.rows[name] = (split, tags)
        Image.fromarray(draw(len(self.rows)) if image is None else image).save(self.root / name, quality=92)
        return self.root / name

    def of(self, split: str) -> list[str]:
        """Names of the images of a split."""
        return [name for name, row in self.rows.items() if row[0] == split]

    def retag(self, change: Callable[[int, set[str]], set[str]], split: str | None = None) -> None:
        """Give every image (of a split) the tags that `change` makes of its number and its tags."""
        for number, name in enumerate(self.of(split) if split else list(self.rows)):
            self.rows[name] = (self.rows[name][0], change(number, self.rows[name][1]))

    def write(self) -> Path:
        """Write the table; returns its path."""
        with (self.root / "tags.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(name, ";".join(sorted(tags)), split) for name, (split, tags) in self.rows.items()]
            csv.writer(file).writerows([("image", "tags", "split"), *rows])
        return self.root / "tags.csv"


def draw(seed: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A cloudy image (height, width, 3) uint8 drawn from a seed."""
    noise = np.random.default_rng(seed).uniform(0, 255, (24, 32, 3)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


@pytest.fixture
def healthy(tmp_path: Path) -> TagTable:
    """60 images in train, 20 in val; each of three classes is in half of them, in every combination, and an eighth of
    the images show none."""
    table = TagTable(tmp_path / "set")
    for number in range(TRAIN + VAL):
        tags = {name for bit, name in enumerate(CLASSES) if number >> bit & 1}
        table.add(f"{number:03d}.jpg", "train" if number < TRAIN else "val", tags)
    return table


def diagnose(table: TagTable, **options: Any) -> tuple[dict[str, Any], list[tuple[str, str, list[str]]]]:
    """The report, and of its findings name, level and classes."""
    report = boxless.examine(table.write(), **options)
    return report, [(finding["fault"], finding["level"], finding["classes"]) for finding in report["findings"]]


def not_fine(report: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Verdict and reasons of the classes that are not fine."""
    rows = {name: (row["verdict"], row["reasons"]) for name, row in report["classes"].items()}
    return {name: row for name, row in rows.items() if row != ("fine", [])}


def files(finding: dict[str, Any]) -> list[list[str]]:
    return [[Path(file).name for file in group] for group in finding["images"]]


def test_a_dataset_without_problems_has_no_findings(healthy: TagTable):
    report, faults = diagnose(healthy)
    assert faults == []
    assert not_fine(report) == {}
    assert (report["data"], report["splits"], report["images"]) == ("tags.csv", ["train"], 60)
    assert next(iter(report)) == "summary"
    assert report["summary"] == [
        "train: table, 60 images, 3 classes; 8 images without a tag, kept as negatives",
        "val: table, 20 images, 3 classes; 2 images without a tag, kept as negatives",
    ]
    assert report["classes"]["bolt"] == {
        "verdict": "fine",
        "reasons": [],
        "images": 30,
        "negatives": 30,
        "unsure": 0,
        "given": 0,
        "counted": 0,
        "co_occurrence": {"class": "gear", "share": 0.5},
        "single_object": None,
    }


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train2017", "val2017"), ("train", "val")])
def test_verdicts_are_of_the_split_that_training_takes(healthy: TagTable, names: tuple[str, str]):
    splits = dict(zip(("train", "val"), names, strict=True))
    healthy.rows = {name: (splits[split], tags) for name, (split, tags) in healthy.rows.items()}
    report, faults = diagnose(healthy)
    assert (report["splits"], report["images"], faults) == ([names[0]], 60, [])
    labels = healthy.root / "labels.jsonl"
    labels.write_text('{"image": "001.jpg", "tags": {"bolt": true}}\n')
    assert diagnose(healthy, labels=labels)[0]["splits"] == [names[0]]


@pytest.mark.parametrize(("count", "verdict"), [(4, "hopeless"), (5, "weak"), (19, "weak"), (20, "fine")])
def test_too_few_images(healthy: TagTable, count: int, verdict: str):
    healthy.retag(
        lambda number, tags: tags | ({"nut"} if number * count // 60 != (number - 1) * count // 60 else set())
    )
    report, faults = diagnose(healthy)
    assert report["classes"]["nut"]["images"] == count
    if verdict == "fine":
        assert (faults, not_fine(report)) == ([], {})
        return
    assert faults == [("too few images", verdict, ["nut"])]
    assert f"nut ({count})" in report["findings"][0]["what"]
    assert not_fine(report) == {"nut": (verdict, ["too few images"])}


def test_a_class_that_is_not_in_train_is_hopeless(healthy: TagTable):
    healthy.retag(lambda number, tags: tags | {"nut"}, split="val")
    report, faults = diagnose(healthy)
    assert faults == [("too few images", "hopeless", ["nut"])]
    assert report["classes"]["nut"]["images"] == 0


@pytest.mark.parametrize(
    ("without", "verdict"), [(0, "hopeless"), (4, "hopeless"), (5, "weak"), (19, "weak"), (20, "")]
)
def test_too_few_negatives(healthy: TagTable, without: int, verdict: str):
    healthy.retag(lambda number, tags: tags if number < without else tags | {"table"})
    report, faults = diagnose(healthy)
    assert report["classes"]["table"]["negatives"] == without
    assert faults == ([("too few negatives", verdict, ["table"])] if verdict else [])
    assert not_fine(report) == ({"table": (verdict, ["too few negatives"])} if verdict else {})


def test_two_classes_that_always_occur_together(healthy: TagTable):
    healthy.retag(lambda number, tags: tags | ({"washer"} if "bolt" in tags else set()))
    report, faults = diagnose(healthy)
    assert faults == [("always together", "hopeless", ["bolt", "washer"])]
    assert "the same 30 images" in report["findings"][0]["what"]
    assert not_fine(report) == dict.fromkeys(["bolt", "washer"], ("hopeless", ["always together"]))


@pytest.mark.parametrize(("apart", "rarely"), [(0, True), (1, True), (2, False)])
def test_a_class_that_rarely_occurs_without_another(healthy: TagTable, apart: int, rarely: bool):
    def change(number: int, tags: set[str]) -> set[str]:
        strays = [0, 2][:apart]
        return tags | ({"washer"} if ("bolt" in tags and number < 48) or number in strays else set())

    healthy.retag(change, split="train")
    report, faults = diagnose(healthy)
    assert report["classes"]["washer"]["co_occurrence"] == {"class": "bolt", "share": round(24 / (24 + apart), 4)}
    assert faults == ([("rarely apart", "weak", ["washer"])] if rarely else [])
    assert not_fine(report) == ({"washer": ("weak", ["rarely apart"])} if rarely else {})
    if rarely:
        assert f"24 of {24 + apart} images of washer also show bolt" in report["findings"][0]["what"]


@pytest.mark.parametrize(("apart", "rarely"), [(3, True), (4, False)])
def test_co_occurrence_with_a_class_that_is_nearly_everywhere_is_expected(apart: int, rarely: bool):
    # Of 400 images 340 show a table: of 100 with a nut 15 would be without one by chance.
    tables = [True] * 340 + [False] * 60
    nuts = [number < 100 - apart or number >= 400 - apart for number in range(400)]
    present = np.array([tables, nuts]).T
    table = Table(("table", "nut"), present, ~present, *(present.T.astype(int) @ one for one in (present, ~present)))
    assert [finding.classes for finding in check_co_occurrence(table, ["table", "nut"])] == (
        [["nut"]] if rarely else []
    )


def test_classes_of_few_images_are_not_reported_for_co_occurrence(healthy: TagTable):
    healthy.retag(lambda number, tags: tags | {"table", "floor"} | ({"nut", "screw"} if number < 4 else set()))
    assert diagnose(healthy)[1] == [
        ("too few images", "hopeless", ["nut", "screw"]),
        ("too few negatives", "hopeless", ["floor", "table"]),
    ]


def test_names_that_differ_in_case(healthy: TagTable):
    healthy.retag(lambda number, tags: {name.replace("bolt", "Bolt ") for name in tags}, split="val")
    report, faults = diagnose(healthy)
    assert faults == [("similar names", "weak", ["Bolt", "bolt"])]
    assert not_fine(report) == dict.fromkeys(["bolt", "Bolt"], ("weak", ["similar names"]))


def test_a_typo_in_a_name(healthy: TagTable):
    healthy.retag(lambda number, tags: tags if number != 4 else {"sprnig"})
    report, faults = diagnose(healthy)
    assert faults == [("similar names", "weak", ["sprnig"])]
    assert "rename 'sprnig'" in report["findings"][0]["fix"]
    assert not_fine(report) == {"sprnig": ("weak", ["similar names"])}


def test_broken_images(healthy: TagTable):
    (healthy.root / "003.jpg").write_bytes((healthy.root / "003.jpg").read_bytes()[:900])
    (healthy.root / "070.jpg").write_bytes(b"")
    report, faults = diagnose(healthy)
    assert faults == [("broken", "weak", [])]
    assert files(report["findings"][0]) == [["003.jpg"], ["070.jpg"]]
    assert "003.jpg: cannot be decoded" in report["findings"][0]["what"]
    assert (report["images"], report["classes"]["bolt"]["images"]) == (59, 29)
    assert not_fine(report) == {}


def test_tiny_images(healthy: TagTable):
    Image.fromarray(draw(999, 95, 60)).save(healthy.root / "007.jpg")
    Image.fromarray(draw(998, 60, 96)).save(healthy.root / "008.jpg")
    report, faults = diagnose(healthy)
    assert faults == [("tiny", "weak", [])]
    assert files(report["findings"][0]) == [["007.jpg"]]
    assert "the smallest 95 px" in report["findings"][0]["what"]


def smaller(path: Path) -> np.ndarray:
    """The image at three quarters of its size."""
    return np.array(Image.fromarray(read_image(path)).resize((120, 90)))


@pytest.mark.parametrize("same_file", [True, False])
def test_duplicates_with_different_tags(healthy: TagTable, same_file: bool):
    copy = healthy.add("copy.jpg", "train", {"gear"}, smaller(healthy.root / "001.jpg"))
    if same_file:
        shutil.copy(healthy.root / "001.jpg", copy)
    report, faults = diagnose(healthy)
    assert faults == [("conflicting tags", "weak", [])]
    assert files(report["findings"][0]) == [["001.jpg", "copy.jpg"]]
    assert "bolt against gear" in report["findings"][0]["what"]
    assert report["images"] == (60 if same_file else 61)


@pytest.mark.parametrize("same_file", [True, False])
def test_images_in_two_splits(healthy: TagTable, same_file: bool):
    for number in (1, 2, 5):
        name, tags = f"{number:03d}.jpg", healthy.rows[f"{number:03d}.jpg"][1]
        copy = healthy.add(f"copy{number}.jpg", "val", tags, smaller(healthy.root / name))
        if same_file:
            shutil.copy(healthy.root / name, copy)
    report, faults = diagnose(healthy)
    assert faults == [("leakage", "weak", [])]
    assert "3 of 23 images of val are also in train" in report["findings"][0]["what"]
    assert files(report["findings"][0]) == [[f"00{n}.jpg", f"copy{n}.jpg"] for n in (1, 2, 5)]
    assert diagnose(healthy, split="train")[1] == []


def test_turned_and_mirrored_images_in_two_splits(healthy: TagTable):
    for number, turn in ((1, np.rot90), (2, np.fliplr), (5, lambda image: np.rot90(np.fliplr(image), 3))):
        name, tags = f"{number:03d}.jpg", healthy.rows[f"{number:03d}.jpg"][1]
        healthy.add(f"copy{number}.jpg", "val", tags, np.ascontiguousarray(turn(read_image(healthy.root / name))))
    report, faults = diagnose(healthy)
    assert faults == [("leakage", "weak", [])]
    what = "3 of 23 images of val are also in train, 3 of them turned or mirrored"
    assert report["findings"][0]["what"] == what
    assert files(report["findings"][0]) == [[f"00{n}.jpg", f"copy{n}.jpg"] for n in (1, 2, 5)]
    # Images are counted, not groups of them: one that is as it was, and a second that is mirrored.
    original = read_image(healthy.root / "001.jpg")
    healthy.add("same1.jpg", "val", healthy.rows["001.jpg"][1], original)
    healthy.add("flip1.jpg", "val", healthy.rows["001.jpg"][1], np.ascontiguousarray(np.fliplr(original)))
    what = "5 of 25 images of val are also in train, 4 of them turned or mirrored"
    assert diagnose(healthy)[0]["findings"][0]["what"] == what


def test_a_mirrored_image_with_other_tags_is_a_conflict_unless_the_class_depends_on_it(healthy: TagTable):
    mirrored = np.ascontiguousarray(read_image(healthy.root / "001.jpg")[:, ::-1])
    healthy.add("mirrored.jpg", "train", {"gear"}, mirrored)
    report, faults = diagnose(healthy)
    assert faults == [("conflicting tags", "weak", [])]
    assert "right for a class that depends on it, such as an arrow" in report["findings"][0]["fix"]


def test_names_of_augmented_copies_in_two_splits(healthy: TagTable):
    for number, (name, split) in enumerate(
        [
            ("photo_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "train"),
            ("photo_jpg.rf.fedcba9876543210fedcba9876543210.jpg", "val"),
            ("part.png", "val"),
            ("part_augmented_1.png", "train"),
            ("part_augmented_2.png", "train"),
            ("lone_augmented_1.png", "train"),
            ("lone_augmented_2.png", "train"),
        ]
    ):
        healthy.add(name, split, {"bolt"} if number % 2 else {"gear"})
    report, faults = diagnose(healthy)
    assert faults == [("augmented copies", "weak", [])]
    assert report["findings"][0]["what"] == "5 images of several splits have names of augmented copies of 2 images"
    assert files(report["findings"][0]) == [
        [f"photo_jpg.rf.{one}.jpg" for one in ("0123456789abcdef" * 2, "fedcba9876543210" * 2)],
        ["part_augmented_1.png", "part_augmented_2.png", "part.png"],
    ]


def with_spot(image: np.ndarray) -> np.ndarray:
    """The image with a spot of 12 x 12 pixels."""
    spotted = image.astype(int)
    spotted[60:72, 80:92] += 70 if spotted[60:72, 80:92].mean() < 128 else -70
    return spotted.clip(0, 255).astype(np.uint8)


def test_an_image_with_a_defect_beside_the_same_without_is_a_pair_to_keep(healthy: TagTable):
    healthy.add("template.png", "train", set(), draw(2000, 640, 480))
    healthy.add("defect.png", "val", {"bolt"}, with_spot(draw(2000, 640, 480)))
    report, faults = diagnose(healthy)
    assert faults == [("details", "note", [])]
    what = "1 image differs in a detail from others with other tags, such as none against bolt, 1 of them across splits"
    assert report["findings"][0]["what"] == what
    assert report["findings"][0]["fix"].startswith("keep them: ")
    assert files(report["findings"][0]) == [["template.png", "defect.png"]]
    # The same image once more, with the tag missing, is a conflict.
    healthy.add("copy.jpg", "train", set(), with_spot(draw(2000, 640, 480)))
    assert diagnose(healthy)[1] == [("conflicting tags", "weak", []), ("leakage", "weak", [])]


def test_duplicates_in_a_split(healthy: TagTable):
    shutil.copy(healthy.root / "001.jpg", healthy.add("copy.jpg", "train", {"bolt"}))
    healthy.add("smaller.png", "train", {"bolt"}, smaller(healthy.root / "001.jpg"))
    report, faults = diagnose(healthy)
    assert faults == [("duplicates", "note", [])]
    assert files(report["findings"][0]) == [["001.jpg", "copy.jpg", "smaller.png"]]
    assert report["findings"][0]["what"].startswith("2 images ")
    # The same file counts once.
    assert (report["images"], report["classes"]["bolt"]["images"]) == (61, 31)
    assert not_fine(report) == {}


def test_different_images_of_one_scene_are_no_duplicates(healthy: TagTable):
    scene = draw(1000)
    for number, split in enumerate(["train"] * 5 + ["val"] * 3):
        take = scene.copy()
        take[20:30, 10 + 16 * number : 20 + 16 * number] = 255
        healthy.add(f"take{number}.png", split, {"bolt"} if number % 2 else {"gear"}, take)
    report, faults = diagnose(healthy)
    assert faults == [("near duplicates", "note", [])]
    assert len(files(report["findings"][0])[0]) == 8
    assert "8 images are nearly the same as others: they show 1 scene, 1 of them" in report["findings"][0]["what"]


def test_images_of_a_fixed_camera_are_no_duplicates(healthy: TagTable):
    # The hash does not resolve a speck; with many images of one scene, specks may matter.
    scene = draw(1000)
    for number in range(12):
        take = scene.copy()
        take[60, 10 + 8 * number] = 255
        healthy.add(f"take{number}.png", "train", {"bolt"} if number % 2 else {"gear"}, take)
    assert diagnose(healthy)[1] == [("near duplicates", "note", [])]


def test_many_copies_of_one_image_are_leakage_and_conflict(healthy: TagTable):
    image = read_image(healthy.root / "001.jpg")
    for number in range(16):
        turned = np.rot90(image[:, ::-1] if number % 2 else image, number)
        tags = {"gear"} if number == 9 else {"bolt"}
        copy = healthy.add(f"copy{number}.jpg", "val" if number % 4 else "train", tags, np.ascontiguousarray(turned))
        Image.fromarray(turned).save(copy, quality=60 + 2 * number)
    report, faults = diagnose(healthy)
    assert faults == [("conflicting tags", "weak", []), ("leakage", "weak", [])]
    conflict, leakage = report["findings"]
    assert "bolt against gear" in conflict["what"]
    assert "12 of 32 images of val are also in train, 12 of them turned or mirrored" in leakage["what"]
    assert files(leakage) == [
        [
            "001.jpg",
            *(f"copy{number}.jpg" for number in (0, 4, 8, 12)),
            *(f"copy{number}.jpg" for number in range(16) if number % 4),
        ]
    ]


def test_many_images_without_a_tag(healthy: TagTable):
    for number in range(60):
        healthy.add(f"bare{number}.jpg", "train", set())
    report, faults = diagnose(healthy)
    assert faults == [("untagged", "note", [])]
    assert "67 of 120" not in report["findings"][0]["what"] and "68 of 120" in report["findings"][0]["what"]


def test_one_tag_per_image(healthy: TagTable):
    healthy.retag(lambda number, tags: {CLASSES[number % 3]})
    report, faults = diagnose(healthy)
    assert faults == [("single tags", "note", [])]
    assert report["classes"]["gear"]["co_occurrence"] is None


def test_one_object_per_image_is_detected_from_boxes_only(healthy: TagTable):
    healthy.rows["000.jpg"] = ("train", {"weld"})
    dataset = load_dataset(healthy.write(), "train")

    def boxed(sample: Any) -> Any:
        # Two gears per image, two springs in one, and one bolt without a box.
        extra = {"004.jpg": [2], "001.jpg": []}.get(sample.id, [1] if 1 in sample.tags else [])
        labels = [] if sample.id == "001.jpg" else sorted(sample.tags) + extra
        boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (len(labels), 1))
        return replace(sample, annotations=Annotations(boxes, np.array(labels, np.int64), np.zeros(len(labels), bool)))

    report = boxless.examine(replace(dataset, samples=tuple(map(boxed, dataset.samples))))
    assert [row["single_object"] for row in report["classes"].values()] == [round(29 / 30, 4), 0, round(27 / 28, 4), 1]
    # One image of a weld is too few.
    few = ("too few images", ["weld"])
    assert [(one["fault"], one["classes"]) for one in report["findings"]] == [
        few,
        ("single objects", ["bolt", "spring"]),
    ]
    assert [(one["fault"], one["classes"]) for one in boxless.examine(dataset)["findings"]] == [few]


def unsure_of_bolts(dataset: Dataset) -> Dataset:
    """The same dataset, with bolt unsure in the first ten images."""
    bolt = {dataset.classes.index("bolt")}
    first = (replace(one, tags=one.tags - bolt, unsure=one.tags & bolt) for one in dataset.samples[:10])
    return replace(dataset, samples=(*first, *dataset.samples[10:]))


def test_unsure_images_are_neither_positives_nor_negatives(healthy: TagTable):
    row = boxless.examine(unsure_of_bolts(load_dataset(healthy.write(), "train")))["classes"]["bolt"]
    assert (row["images"], row["negatives"], row["unsure"]) == (25, 30, 5)


def test_labels_of_a_person_count(
    healthy: TagTable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    table, labels = healthy.write(), healthy.root / "labels.jsonl"
    names = [name for name in healthy.of("train") if "bolt" in healthy.rows[name][1]][:5]
    boxes = [{"class": "bolt", "xyxy": [1, 2, 30, 40], "state": state} for state in ("right", "right", "wrong")]
    lines = [{"image": name, "boxes": boxes} for name in names[:2]]
    lines += [{"image": names[2], "tags": {"bolt": None}}, {"image": names[3], "tags": {"bolt": False}}]
    lines += [{"image": names[4], "boxes": boxes[2:], "counts": {"bolt": 3}}]
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = boxless.examine(table)["classes"]["bolt"]
    said = boxless.examine(table, labels=labels)["classes"]["bolt"]
    counts = ("images", "negatives", "unsure", "given", "counted")
    assert [said[key] - row[key] for key in counts] == [-2, 1, 1, 2, 1]
    for words, shown in ((["--labels", labels], True), ([], False)):
        monkeypatch.setattr("sys.argv", ["boxless", "doctor", str(table), *map(str, words)])
        with pytest.raises(SystemExit):
            main()
        printed = capsys.readouterr().out
        assert ("unknown" in printed) == shown == ("boxes" in printed)


def test_an_unsure_tag_does_not_conflict_with_a_duplicate(healthy: TagTable):
    healthy.add("copy.jpg", "train", {"bolt"}, smaller(healthy.root / "001.jpg"))
    report = boxless.examine(unsure_of_bolts(load_dataset(healthy.write(), "train")))
    assert [finding["fault"] for finding in report["findings"]] == ["duplicates"]


def test_a_report_is_json(healthy: TagTable):
    healthy.retag(lambda number, tags: tags | {"table"})
    shutil.copy(healthy.root / "001.jpg", healthy.add("copy.jpg", "train", {"gear"}))
    report, faults = diagnose(healthy)
    assert [level for _, level, _ in faults] == ["hopeless", "weak"]
    assert json.loads(json.dumps(report)) == report


def test_selected_classes_are_checked_against_all_classes(healthy: TagTable):
    healthy.retag(lambda number, tags: tags | ({"washer"} if "bolt" in tags else set()))
    report, _ = diagnose(healthy, classes=["washer", "gear"])
    assert list(report["classes"]) == ["washer", "gear"]
    assert not_fine(report) == {"washer": ("hopeless", ["always together"])}
    assert diagnose(healthy, classes=["gear"])[1] == []
    with pytest.raises(BoxlessError, match="no class 'nail'; there are: bolt, gear, spring, washer"):
        diagnose(healthy, classes=["nail"])
    with pytest.raises(BoxlessError, match="no class is chosen; there are: bolt, gear, spring, washer"):
        diagnose(healthy, classes=[])


def test_one_split_can_be_checked_alone(healthy: TagTable):
    report, faults = diagnose(healthy, split="val")
    assert (report["splits"], report["images"]) == (["val"], 20)
    assert faults == [("too few images", "weak", list(CLASSES)), ("too few negatives", "weak", list(CLASSES))]
    with pytest.raises(BoxlessError, match="no split 'test'"):
        diagnose(healthy, split="test")
    with pytest.raises(BoxlessError, match="split=train names a part of a path"):
        boxless.examine(load_dataset(healthy.write(), "train"), split="train")


def test_splits_of_other_names_are_used_together(healthy: TagTable):
    healthy.rows = {name: ("A" if split == "train" else "B", tags) for name, (split, tags) in healthy.rows.items()}
    report, faults = diagnose(healthy)
    assert (report["splits"], report["images"], faults) == (["A", "B"], 80, [])
    report = boxless.examine(make_voc(healthy, {"A": healthy.of("A"), "B": healthy.of("B"), "all": list(healthy.rows)}))
    assert (report["splits"], report["images"], report["findings"]) == (["A", "B"], 80, [])


def make_voc(table: TagTable, lists: dict[str, list[str]]) -> Path:
    """The images of a table as a VOC year, with these lists of images."""
    year = table.root / "VOC"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (year / part).mkdir(parents=True)
    for name, (_, tags) in table.rows.items():
        shutil.copy(table.root / name, year / "JPEGImages" / name)
        objects = "".join(f"<object><name>{tag}</name></object>" for tag in sorted(tags))
        (year / "Annotations" / name).with_suffix(".xml").write_text(f"<annotation>{objects}</annotation>")
    for split, names in lists.items():
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names))
    return year


def test_trainval_is_no_leakage(healthy: TagTable):
    train, val = healthy.of("train"), healthy.of("val")
    report = boxless.examine(make_voc(healthy, {"train": train, "val": val, "trainval": train + val}))
    assert (report["splits"], report["images"], report["findings"]) == (["trainval"], 80, [])


def test_an_image_in_two_lists_is_leakage_beside_trainval_too(healthy: TagTable):
    train, val = healthy.of("train"), [*healthy.of("val"), "001.jpg"]
    report = boxless.examine(make_voc(healthy, {"train": train, "val": val, "trainval": train + val[:-1]}))
    assert [finding["fault"] for finding in report["findings"]] == ["leakage"]
    assert files(report["findings"][0]) == [["001.jpg"]]


def test_the_same_list_twice_is_leakage(healthy: TagTable):
    report = boxless.examine(make_voc(healthy, {"train": healthy.of("train"), "val": healthy.of("train")}))
    assert [finding["fault"] for finding in report["findings"]] == ["leakage"]
    assert "60 of 60" in report["findings"][0]["what"]


def test_a_split_that_cannot_be_used_is_noted(healthy: TagTable):
    year = make_voc(healthy, {"train": healthy.of("train"), "test": healthy.of("val")})
    for name in healthy.of("val"):
        (year / "Annotations" / name).with_suffix(".xml").unlink()
    report = boxless.examine(year)
    assert [(one["fault"], one["level"]) for one in report["findings"]] == [("unusable split", "note")]
    assert "the split test cannot be used" in report["findings"][0]["what"]
    (year / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(BoxlessError, match=r"20 of 20 images without an annotation"):
        boxless.examine(year)


def test_a_split_that_training_needs_must_be_usable(healthy: TagTable):
    year = make_voc(healthy, {"train": healthy.of("train"), "val": healthy.of("val")})
    for name in healthy.of("train"):
        (year / "Annotations" / name).with_suffix(".xml").unlink()
    with pytest.raises(BoxlessError, match="60 of 60 images without an annotation"):
        boxless.examine(year)


def test_warnings_of_the_loader_are_reported(healthy: TagTable):
    (healthy.root / "000.jpg").unlink()
    report, _ = diagnose(healthy)
    assert report["warnings"][0] == "train: rows whose image is missing, left out: 1 (000.jpg)"


def test_a_dataset_of_broken_images_is_an_error(healthy: TagTable):
    for name in healthy.rows:
        (healthy.root / name).write_bytes(b"")
    with pytest.raises(BoxlessError, match=r"no image can be read; the first: .*000.jpg: the file is empty"):
        diagnose(healthy)


def test_torch_is_not_imported():
    code = "import sys; from boxless import examine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
