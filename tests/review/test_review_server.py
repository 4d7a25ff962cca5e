"""Requests to a review: what it answers, what it refuses, and that a kill loses nothing."""

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from hostile import raw
from opened_files import Opened
from PIL import Image
from reviewing import CAT, CLASSES, DOG, QUEUE, box, last, lines, opened_review, served, words, write_review
from running import boxless

from boxless.errors import BoxlessError

ACCEPTED = {"boxes": [box("cat", CAT, "right", CAT), box("dog", DOG, "right", DOG)], "done": True, "seconds": 4}


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with served(opened_review(folder)) as address:
        yield address


def get(url: str, path: str) -> Any:
    answer = requests.get(f"{url}/{path}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(url: str, number: object, content: Any, **headers: str) -> requests.Response:
    name = QUEUE[number][0] if isinstance(number, int) and 0 <= number < len(QUEUE) else "a.png"
    body = content if isinstance(content, bytes) else json.dumps({"image": name, **content}).encode()
    return requests.post(
        f"{url}/images/{number}", body, timeout=30, headers={"Content-Type": "application/json", **headers}
    )


def test_the_queue_lists_images_and_classes(url: str) -> None:
    queue = get(url, "queue")
    assert (queue["run"], queue["out"], queue["reviewer"]) == ("run", "labels.jsonl", None)
    assert [one["name"] for one in queue["classes"]] == list(CLASSES)
    assert queue["classes"][0] == {"name": "cat", "colour": "#e69f00", "ink": "black"}
    assert queue["images"] == [{"name": name, "verdict": None} for name, _ in QUEUE]
    assert queue["summary"] == ["Looked at 0 images in 1 minute, 0 accepted, 0 corrected"]


def test_an_image_comes_with_its_tags_proposals_and_labels(url: str) -> None:
    shown = get(url, "images/0")
    assert (shown["width"], shown["height"], shown["labels"]) == (200, 100, None)
    assert shown["tags"] == {"cat": True, "dog": True, "owl": False}
    assert [(one["class"], one["xyxy"]) for one in shown["boxes"]] == [("cat", CAT), ("dog", DOG)]
    head, content = shown["image"].split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(content))).size == (200, 100)
    answer = post(url, 0, ACCEPTED).json()
    assert answer["verdict"] == "accepted" and answer["summary"][0].startswith("Looked at 1 image in 1 minute, 1 acc")
    labels = get(url, "images/0")["labels"]
    assert (labels["boxes"], labels["done"], labels["seconds"]) == (ACCEPTED["boxes"], True, 4)
    assert get(url, "queue")["images"][0]["verdict"] == "accepted"


def test_proposals_that_leave_their_image_are_clipped(folder: Path) -> None:
    rows = [{"class": "cat", "xyxy": xyxy, "score": 1} for xyxy in ([150, 50, 230, 120], [200, 50, 230, 60])]
    line = {"image": "a.png", "score": 1, "reasons": [], "boxes": rows}
    (folder / "queue.jsonl").write_text(json.dumps(line) + "\n")
    with served(opened_review(folder)) as url:
        assert [one["xyxy"] for one in get(url, "images/0")["boxes"]] == [[150, 50, 200, 100]]


def test_every_step_is_a_line_of_its_own(url: str, folder: Path) -> None:
    steps = [{"boxes": [box("cat", CAT, "wrong", CAT)]}, {}, ACCEPTED]
    for step in steps:
        assert post(url, 0, step).status_code == 200
    assert post(url, 1, {"tags": {"dog": None, "cat": True}, "counts": {"cat": 2}}).json()["verdict"] is None
    assert lines(folder) == [
        *({"image": "a.png", "tags": {}, "boxes": [], "complete": [], **step} for step in steps),
        {"image": "b.png", "tags": {"dog": None, "cat": True}, "boxes": [], "complete": [], "counts": {"cat": 2}},
    ]


def test_points_that_another_tool_gave_are_kept(folder: Path) -> None:
    points = [{"class": "cat", "xy": [30, 40]}]
    (folder / "labels.jsonl").write_text(json.dumps({"image": "a.png", "points": points}) + "\n")
    with served(opened_review(folder, reviewer="ann")) as url:
        assert post(url, 0, ACCEPTED).status_code == 200
    said = last(folder, "a.png")
    assert (said["points"], said["reviewer"], said["boxes"]) == (points, "ann", ACCEPTED["boxes"])


def test_a_page_does_not_overwrite_what_another_one_has_saved(folder: Path) -> None:
    mine, other = {**ACCEPTED, "image": "a.png"}, {"image": "a.png", "tags": {"cat": None}}
    with served(opened_review(folder)) as url:
        both = get(url, "images/0")["revision"]
        saved = post(url, f"0?revision={both}", other).json()["revision"]
        answer = post(url, f"0?revision={both}", mine)
        assert answer.status_code == 409 and "another page has saved labels of this image" in answer.json()["error"]
        # An answer that got lost is asked for again.
        assert post(url, f"0?revision={both}", other).json()["revision"] == saved == get(url, "images/0")["revision"]
    # Also after a restart.
    with served(opened_review(folder)) as url:
        assert post(url, f"0?revision={both}", mine).status_code == 409
        assert post(url, f"0?revision={saved}", mine).json()["verdict"] == "accepted"
    assert [line["tags"] for line in lines(folder)] == [{"cat": None}, {"cat": None}, {}]


def test_an_image_that_the_data_no_longer_has_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "data" / "b.png").unlink()
    with (folder / "queue.jsonl").open("a") as queue:
        queue.write("\n")
    review = opened_review(folder)
    assert [item.queued.image for item in review.items] == ["a.png", "c.png"]
    assert "queue.jsonl: left out 1 image, which the data no longer has: b.png" in caplog.text


# What is refused.

OUTSIDE = [120.0, 10.0, 201.0, 90.0]
REFUSED = {
    "no JSON": (b"cat", 422),
    "nothing": (b"", 422),
    "a list": (b"[]", 422),
    "deep": (b"[" * 100_000, 422),
    "NaN": (b'{"image": "a.png", "boxes": [{"class": "cat", "xyxy": [NaN, 1, 2, 3], "state": "right"}]}', 422),
    "infinity": (b'{"image": "a.png", "seconds": 1e999}', 422),
    "no image": (b'{"boxes": []}', 422),
    "another image": ({**ACCEPTED, "image": "b.png"}, 409),
    "no class": ({"boxes": [box("ox", CAT, "right")]}, 422),
    "no class of a tag": ({"tags": {"../../etc": True}}, 422),
    "outside": ({"boxes": [box("cat", OUTSIDE, "right")]}, 422),
    "without area": ({"boxes": [box("cat", [20, 20, 20, 80], "right")]}, 422),
    "three numbers": ({"boxes": [box("cat", [20, 20, 80], "right")]}, 422),
    "no state": ({"boxes": [box("cat", CAT, "maybe")]}, 422),
    "contradiction": ({"tags": {"cat": False}, "boxes": [box("cat", CAT, "right")]}, 422),
    "count": ({"counts": {"cat": -1}}, 422),
    "too large": (b'{"image": "a.png"' + b" " * 2**20 + b"}", 413),
}


@pytest.mark.parametrize("what", REFUSED)
def test_labels_that_make_no_sense_are_refused(url: str, folder: Path, what: str) -> None:
    content, status = REFUSED[what]
    answer = post(url, 0, content)
    assert answer.status_code == status and "\n" not in answer.json()["error"]
    assert lines(folder) == [] and post(url, 0, ACCEPTED).status_code == 200


def test_a_page_of_an_earlier_queue_writes_no_labels_under_another_image(folder: Path) -> None:
    first, *others = (folder / "queue.jsonl").read_text().splitlines(keepends=True)
    (folder / "queue.jsonl").write_text("".join([*others, first]))
    with served(opened_review(folder)) as url:
        answer = post(url, 0, {**ACCEPTED, "image": "a.png"})
        assert (answer.status_code, answer.json()["error"]) == (409, "the server has another queue; reload the page")
        assert lines(folder) == []
        assert post(url, 2, {**ACCEPTED, "image": "a.png"}).json()["verdict"] == "accepted"
    assert [line["image"] for line in lines(folder)] == ["a.png"]


def test_other_images_kinds_and_methods_are_refused(url: str, folder: Path) -> None:
    for number, status in ((3, 404), (-1, 404), (10**30, 404), ("a.png", 422), ("0/x", 404), ("..%2Fqueue.jsonl", 404)):
        assert post(url, number, ACCEPTED).status_code == status
        assert requests.get(f"{url}/images/{number}", timeout=30).status_code == status
    assert post(url, 0, ACCEPTED, **{"Content-Type": "text/plain"}).status_code == 415
    assert requests.put(f"{url}/images/0", b"{}", timeout=30).status_code == 405
    assert requests.delete(f"{url}/images/0", timeout=30).status_code == 405
    for path in ("labels.jsonl", "openapi.json", "docs", "predict", "model", "static/review.js"):
        assert requests.get(f"{url}/{path}", timeout=30).status_code == 404
    assert lines(folder) == []


def test_other_sites_and_paths_that_climb_are_refused(url: str, folder: Path) -> None:
    assert post(url, 0, ACCEPTED, Origin="http://evil.example").status_code == 403
    assert post(url, 0, ACCEPTED, Host="evil.example").status_code == 400
    assert requests.get(f"{url}/queue", headers={"Host": "evil.example"}, timeout=30).status_code == 400
    for climb in ("/../labels.jsonl", "/images/../../queue.jsonl", "/images/%2e%2e/%2e%2e/tags.csv", "//etc/passwd"):
        request = f"GET {climb} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        assert raw(url, request.encode(), last=False) == 404
    assert lines(folder) == [] and post(url, 0, ACCEPTED, Origin=url).status_code == 200


def test_the_page_loads_nothing_from_other_sites(url: str) -> None:
    for path in ("", "review.js", "review_stage.js", "review.css", "style.css"):
        answer = requests.get(f"{url}/{path}", timeout=30)
        assert answer.status_code == 200 and answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_only_the_images_are_read_and_only_the_labels_are_written(url: str, folder: Path, opened: Opened) -> None:
    with opened:
        for number in range(3):
            get(url, f"images/{number}")
        assert post(url, 0, ACCEPTED).status_code == 200
        assert post(url, 0, {"tags": {"x/../y": True}}).status_code == 422
    files = {name for name in opened.names if name.startswith(str(folder))}
    assert files == {str(folder / "data" / name) for name, _ in QUEUE} | {str(folder / "labels.jsonl")}
    assert set(opened.for_writing) == {str(folder / "labels.jsonl")}


# The command.


@contextmanager
def command(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`boxless review` in a process of its own; yields the address."""
    script = [sys.executable, "-c", "from boxless.cli import main; main()", "review", *words(folder)]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)))
            yield address[0], process
        finally:
            process.kill()


def test_a_kill_in_the_middle_loses_nothing(folder: Path) -> None:
    with command(folder) as (url, process):
        assert post(url, 0, ACCEPTED).status_code == 200
        for state in ("wrong", "right"):
            assert post(url, 1, {"boxes": [box("dog", DOG, state)]}).status_code == 200
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert [line["image"] for line in lines(folder)] == ["a.png", "b.png", "b.png"]
    # As if the kill had come while a line was written.
    with (folder / "labels.jsonl").open("a") as file:
        file.write('{"image": "c.png", "bo')
    with served(opened_review(folder)) as url:
        assert [one["verdict"] for one in get(url, "queue")["images"]] == ["accepted", None, None]
        assert get(url, "images/1")["labels"]["boxes"] == [box("dog", DOG, "right") | {"proposed": None}]
        assert post(url, 2, {"done": True}).status_code == 200
    assert [line["image"] for line in lines(folder)] == ["a.png", "b.png", "b.png", "c.png"]


def test_the_command_ends_with_the_summary(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"image": "a.png", **ACCEPTED}
    (folder / "labels.jsonl").write_text(json.dumps(said) + "\n")
    monkeypatch.setattr("boxless.review.app.run_until_interrupted", lambda app, listener, host: None)
    assert boxless(monkeypatch, "review", *words(folder)) == 0
    printed = capsys.readouterr()
    assert "Opening" in printed.err and "tags.csv" in printed.err
    assert "continues a review with 1 image done" in " ".join(printed.err.split())
    # Wilson's interval of 2 of 2.
    assert " ".join(printed.out.split()) == (
        "Looked at 1 image in 1 minute, 1 accepted, 0 corrected Precision of the 2 proposed boxes at IoU 0.5: 1.00 "
        "(0.34 to 1.00 with 95% confidence), on these images, the least certain"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--out": "tags.csv"}, "give --out a name that ends in .jsonl"),
        ({"--out": "queue.jsonl"}, "queue.jsonl, line 1: "),
        ({"--queue": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read"),
        ({"--queue": "other.jsonl"}, "other.jsonl: 3 images of 3 are not in tags, such as a-2.png"),
        ({"--queue": "ox.jsonl"}, "'ox' is no class of this run"),
    ],
)
def test_wrong_options_fail_before_anything_is_served(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    start = (folder / "queue.jsonl").read_text()
    (folder / "other.jsonl").write_text(start.replace(".png", "-2.png"))
    (folder / "ox.jsonl").write_text(start.replace('"class": "cat"', '"class": "ox"'))
    given = words(folder)
    for option, name in change.items():
        given[given.index(option) + 1] = str(folder / name)
    assert boxless(monkeypatch, "review", *given) == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert message in printed and "Traceback" not in printed
    assert (folder / "queue.jsonl").read_text() == start and not (folder / "labels.jsonl").exists()


def test_a_disk_that_is_full_is_told_and_nothing_half_is_left(url: str, folder: Path) -> None:
    (folder / "labels.jsonl").symlink_to("/dev/full")
    answer = post(url, 0, ACCEPTED)
    assert answer.status_code == 422 and "the disk is full" in answer.json()["error"]
    (folder / "labels.jsonl").unlink()
    assert post(url, 0, ACCEPTED).status_code == 200 and len(lines(folder)) == 1


def test_labels_of_a_class_that_the_run_lacks_are_refused(folder: Path) -> None:
    line = {"image": "a.png", "boxes": [{"class": "yak", "xyxy": [0, 0, 5, 5], "state": "right"}]}
    (folder / "labels.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(BoxlessError, match=r"labels\.jsonl: 'yak' is no class of .*; continue with the run"):
        opened_review(folder)


def test_a_review_of_other_classes_is_refused(tmp_path: Path) -> None:
    write_review(tmp_path / "one")
    (tmp_path / "one" / "data" / "tags.csv").write_text("image,tags\na.png,ox\n")
    with pytest.raises(BoxlessError, match="has no class"):
        opened_review(tmp_path / "one")
