"""The file of labels, and the numbers that a review ends with."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from reviewing import box

from boxless.datasets.label_lines import ImageLabels, append_labels, end_last_line, image_name, read_labels
from boxless.errors import BoxlessError
from boxless.review.summary import is_accepted, summarise, wilson_interval

LINE = {
    "image": "photos/0001.jpg",
    "tags": {"cat": True, "dog": None, "owl": False},
    "counts": {"cat": 3, "dog": "2+"},
    "points": [{"class": "cat", "xy": [1, 2]}],
    "boxes": [
        {"class": "cat", "xyxy": [1, 2, 3, 4.5], "state": "right"},
        {"class": "owl", "xyxy": [0, 0, 9, 9], "state": "wrong"},
    ],
    "complete": ["cat"],
    "reviewer": "ann",
    "seconds": 3.2,
}
"""Every key that the format has for training."""


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def labels(**said: Any) -> ImageLabels:
    return ImageLabels.model_validate({"image": "a.png", **said})


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    own, file = ImageLabels.model_validate(LINE), tmp_path / "labels.jsonl"
    append_labels(file, own)
    assert json.loads(file.read_text()) == LINE
    assert read_labels(file) == {"photos/0001.jpg": own}
    append_labels(file, labels())
    assert json.loads(file.read_text().splitlines()[1]) == {"image": "a.png", "tags": {}, "boxes": [], "complete": []}


def test_a_later_line_replaces_the_earlier_one_also_of_another_person(tmp_path: Path) -> None:
    ann = write(
        tmp_path / "ann.jsonl", {"image": "a.png", "tags": {"cat": True}}, {"image": "b.png", "reviewer": "ann"}
    )
    bob = write(tmp_path / "bob.jsonl", {"image": "a.png", "reviewer": "bob"})
    both = tmp_path / "both.jsonl"
    both.write_bytes(ann.read_bytes() + bob.read_bytes())  # cat ann.jsonl bob.jsonl
    found = read_labels(both)
    assert [(name, own.reviewer, own.tags) for name, own in found.items()] == [
        ("b.png", "ann", {}),
        ("a.png", "bob", {}),
    ]


def test_keys_that_are_not_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = {"image": "c.png"}
    file = write(tmp_path / "labels.jsonl", *({"image": name, "label": "cat"} for name in "ab"), bare, LINE)
    assert read_labels(file)["a"] == labels(image="a")
    assert [record.message for record in caplog.records] == [f"{file}: the key 'label' is not read: it is in 2 lines"]


@pytest.mark.parametrize("rest", ["{", '{"image": "b.png", "tags": {"ca', '{"image": "b.p'])
def test_half_a_line_at_the_end_is_left_out_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rest: str
) -> None:
    file = write(tmp_path / "labels.jsonl", {"image": "a.png"}, rest)
    assert list(read_labels(file)) == ["a.png"]
    assert "half a line at the end is left out" in caplog.text
    end_last_line(file)
    append_labels(file, labels(image="c.png"))
    assert list(read_labels(file)) == ["a.png", "c.png"]


def test_a_whole_line_without_its_end_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "labels.jsonl", json.dumps(LINE))
    end_last_line(file)
    append_labels(file, labels())
    assert list(read_labels(file)) == ["photos/0001.jpg", "a.png"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


RIGHT = {"class": "cat", "xyxy": [1, 2, 3, 4], "state": "right"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not JSON\n", "line 2: Invalid JSON"),
        ("not JSON", "line 2: Invalid JSON"),
        ("[]\n", "line 2: Input should be an object"),
        ({"tags": {}}, "line 2: image: Field required"),
        ({"image": "a", "boxes": [RIGHT | {"state": "maybe"}]}, "boxes.0.state: Input should be 'right' or 'wrong'"),
        ({"image": "a", "boxes": [RIGHT | {"xyxy": [3, 2, 1, 4]}]}, "a box needs x1 < x2 and y1 < y2"),
        ({"image": "a", "boxes": [RIGHT | {"xyxy": [-1, 2, 1, 4]}]}, "greater than or equal to 0"),
        ({"image": "a", "counts": {"cat": "many"}}, "counts.cat"),
        ({"image": "a", "Tags": {"cat": True}}, "'Tags' is not read, write 'tags'"),
        ({"image": "a", "boxes": [RIGHT | {"Proposed": None}]}, "boxes.0: .*'Proposed' is not read, write 'proposed'"),
        ({"image": "a", "boxes": [RIGHT], "tags": {"cat": False}}, "'cat' is absent, yet has a box"),
        ({"image": "a", "tags": {"cat": True}, "complete": ["cat"]}, "'cat' is present and complete, yet has no box"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, row: Any, message: str) -> None:
    file = write(tmp_path / "labels.jsonl", {"image": "a.png"}, row)
    content = file.read_bytes()
    for read in (read_labels, end_last_line):
        with pytest.raises(BoxlessError, match=f"labels.jsonl, line 2: .*{message.removeprefix('line 2: ')}"):
            read(file)
    assert file.read_bytes() == content


def test_a_missing_file_and_a_disk_that_refuses_are_named(tmp_path: Path) -> None:
    with pytest.raises(BoxlessError, match=r"missing\.jsonl: cannot be read"):
        read_labels(tmp_path / "missing.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxlessError, match="cannot be written"):
        append_labels(tmp_path / "file" / "labels.jsonl", labels())


def test_images_are_named_by_their_place_below_the_data(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("")
    for data in (tmp_path, tmp_path / "tags.csv"):
        assert image_name(data, tmp_path / "photos" / "1.jpg") == "photos/1.jpg"
        assert image_name(data, tmp_path.parent / "other" / "1.jpg") == "../other/1.jpg"
    assert image_name(tmp_path, tmp_path / "\udcff.jpg") == "\\udcff.jpg"


# The summary.


def test_the_summary_counts_images_and_boxes() -> None:
    # Of 10 x 10 pixels; moved by 3 the IoU is 7/13, by 4 it is 6/14.
    kept, near, far = [0, 0, 10, 10], [3, 0, 13, 10], [4, 0, 14, 10]
    other = {"class": "dog", "xyxy": kept, "state": "right", "proposed": {"class": "cat", "xyxy": kept}}
    said = [
        labels(done=True, boxes=[box("cat", kept, "right", kept)], seconds=100),
        labels(done=True, seconds=50),
        labels(done=True, boxes=[box("cat", near, "right", kept), box("cat", far, "right", kept)]),
        labels(done=True, boxes=[box("cat", kept, "wrong", kept), other]),
        labels(done=True, boxes=[box("cat", kept, "right")]),
        labels(done=True, tags={"cat": True}),
        labels(boxes=[box("cat", kept, "wrong", kept)], seconds=60),
    ]
    summary = summarise(said)
    assert (summary.images, summary.accepted, summary.corrected, summary.seconds) == (6, 2, 4, 210)
    assert (summary.boxes, summary.hits) == (6, 2)
    first, second = summary.lines(at_random=False)
    assert first == "Looked at 6 images in 4 minutes, 2 accepted, 4 corrected"
    # Wilson's interval of 2 of 6.
    assert second.startswith("Precision of the 6 proposed boxes at IoU 0.5: 0.33 (0.10 to 0.70 with 95% confidence)")
    assert "least certain" in second and "random sample" in summary.lines(at_random=True)[1]
    assert summarise([]).lines(at_random=True) == ["Looked at 0 images in 1 minute, 0 accepted, 0 corrected"]


def test_a_tag_that_follows_from_an_accepted_box_is_no_correction() -> None:
    where, moved = [0, 0, 10, 10], [1, 0, 11, 10]
    accepted = [box("cat", where, "right", where)]
    assert is_accepted(labels(tags={"cat": True}, boxes=accepted))
    assert not is_accepted(labels(tags={"cat": True, "dog": True}, boxes=accepted))
    assert not is_accepted(labels(tags={"cat": True, "dog": None}, boxes=accepted))
    assert not is_accepted(labels(tags={"cat": True}, boxes=[box("cat", moved, "right", where)]))
    assert not is_accepted(labels(tags={"cat": None}, boxes=[box("cat", where, "wrong", where)]))


def test_wilsons_interval_is_that_of_the_literature() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, number), limits in published.items():
        assert wilson_interval(hits, number) == pytest.approx(limits, abs=5e-5)
    assert wilson_interval(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)
