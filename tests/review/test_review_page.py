"""Whole reviews in a real browser, by keyboard, mouse and finger, and what they leave in the file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from reviewing import CAT, DOG, INNER_OWL, LEFT_DOG, OWL, box, last, lines, opened_review, served

from boxless import load_dataset
from boxless.datasets.labels import with_labels

Visit = Callable[..., Page]


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with served(opened_review(folder, reviewer="ann")) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    """Opens the review; what its console holds of errors fails the test, as does a request that leaves the server."""
    wrong: list[str] = []
    contexts = []
    expect.set_options(timeout=30_000)  # Of a machine that has much else to do.

    def visit(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url)
        )
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [text for text in wrong if "Failed to load resource" not in text] == []


def shows(page: Page, name: str, *boxes: str) -> None:
    """Wait until the page shows an image, and compare its boxes."""
    expect(page.locator("#name")).to_have_text(name)
    expect(page.locator("#list button")).to_have_text(list(boxes))
    expect(page.locator("#image")).to_be_visible()


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image is on the page."""
    frame = page.locator("#figure").bounding_box()
    assert frame is not None
    return frame["x"] + x * frame["width"] / 200, frame["y"] + y * frame["height"] / 100


def drag(page: Page, *places: tuple[float, float]) -> None:
    page.mouse.move(*place(page, *places[0]))
    page.mouse.down()
    for one in places[1:]:
        page.mouse.move(*place(page, *one), steps=3)
    page.mouse.up()


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("saved")


def same(found: dict[str, Any], *boxes: dict[str, Any]) -> None:
    """Compare the boxes of a line, those that a pointer has drawn to a pixel and a half."""
    assert len(found["boxes"]) == len(boxes)
    for one, wanted in zip(found["boxes"], boxes, strict=True):
        assert one == {**wanted, "xyxy": pytest.approx(wanted["xyxy"], abs=1.5)}


def test_a_whole_review(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    expect(page.locator("#reasons")).to_have_text("owl is unlikely")
    page.keyboard.press("Enter")

    # The second box is too narrow: its right edge is dragged.
    shows(page, "b.png", "dog, proposed")
    drag(page, (60, 35), (100, 35))
    shows(page, "b.png", "dog, right")
    page.keyboard.press("Enter")

    # The smaller of two boxes is selected by a click, and rejected; a cat is drawn, taken back and drawn again.
    shows(page, "c.png", "owl, proposed", "owl, proposed")
    page.mouse.click(*place(page, 75, 45))
    page.keyboard.press("x")
    shows(page, "c.png", "owl, proposed", "owl, rejected")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    for _ in range(2):
        drag(page, (155, 75), (165, 80), (190, 95))
        shows(page, "c.png", "owl, proposed", "owl, rejected", "cat, right")
        saved(page)
        same(last(folder, "c.png"), box("owl", INNER_OWL, "wrong", INNER_OWL), box("cat", [155, 75, 190, 95], "right"))
        assert last(folder, "c.png")["tags"] == {"cat": True}
        page.keyboard.press("u")
        shows(page, "c.png", "owl, proposed", "owl, rejected")
    drag(page, (155, 75), (190, 95))
    page.keyboard.press("Shift+Enter")

    expect(page.locator("#end")).to_be_visible()
    expect(page.locator("#summary p")).to_have_text(
        [
            "Looked at 3 images in 1 minute, 1 accepted, 2 corrected.",
            # The dog has an IoU of 50 to 90 with what it was; Wilson's interval of 4 of 5.
            "Precision of the 5 proposed boxes at IoU 0.5: 0.80 (0.38 to 0.96 with 95% confidence), "
            "on these images, the least certain.",
        ]
    )
    first, second, third = (last(folder, name) for name in ("a.png", "b.png", "c.png"))
    assert first["boxes"] == [box("cat", CAT, "right", CAT), box("dog", DOG, "right", DOG)]
    assert (first["tags"], first["complete"], first["done"], first["reviewer"]) == ({}, [], True, "ann")
    same(second, box("dog", [10, 10, 100, 60], "right", LEFT_DOG))
    same(
        third,
        box("owl", OWL, "right", OWL),
        box("owl", INNER_OWL, "wrong", INNER_OWL),
        box("cat", [155, 75, 190, 95], "right"),
    )
    assert (third["tags"], third["complete"], third["done"]) == ({"cat": True}, ["owl", "cat"], True)

    # What training makes of the file.
    data = folder / "data" / "tags.csv"
    given = {
        sample.path.name: sample for sample in with_labels(load_dataset(data), folder / "labels.jsonl", data).samples
    }
    assert given["c.png"].tags == {0, 2} and given["c.png"].given is not None
    np.testing.assert_allclose(given["c.png"].given.right.boxes, [OWL, [155, 75, 190, 95]], atol=1.5)
    np.testing.assert_allclose(given["c.png"].given.wrong.boxes, [INNER_OWL])
    assert given["c.png"].given.complete == {0, 2} and given["b.png"].given.right.labels.tolist() == [1]


def test_a_review_continues_after_a_reload_where_it_stopped(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.keyboard.press("Enter")
    shows(page, "b.png", "dog, proposed")
    drag(page, (60, 35), (100, 35))
    page.keyboard.press("ArrowRight")
    shows(page, "c.png", "owl, proposed", "owl, proposed")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    shows(page, "c.png", "owl, rejected", "owl, proposed")
    saved(page)
    before = lines(folder)
    page.reload()
    shows(page, "b.png", "dog, right")
    expect(page.locator("#count")).to_have_text("Image 2, 1 of 3 done")
    page.keyboard.press("ArrowRight")
    shows(page, "c.png", "owl, proposed", "owl, rejected")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    shows(page, "a.png", "cat, right", "dog, right")
    assert lines(folder) == before


def test_undo_goes_back_over_images(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    for image in ("b.png", "c.png"):
        page.keyboard.press("Enter")
        expect(page.locator("#name")).to_have_text(image)
    page.keyboard.press("Enter")
    expect(page.locator("#end")).to_be_visible()
    page.keyboard.press("Control+z")
    shows(page, "c.png", "owl, proposed", "owl, proposed")
    page.click("#undo")
    shows(page, "b.png", "dog, proposed")
    expect(page.locator("#count")).to_have_text("Image 2, 1 of 3 done")
    saved(page)
    assert last(folder, "c.png")["boxes"] == [] and "done" not in last(folder, "c.png")
    # The button that was clicked does not keep Enter.
    page.keyboard.press("Enter")
    shows(page, "c.png", "owl, proposed", "owl, proposed")


def test_boxes_are_moved_and_given_another_class(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.click("text=cat, proposed")
    drag(page, (50, 50), (70, 40))
    page.keyboard.press("3")
    shows(page, "a.png", "owl, right", "dog, proposed")
    # A corner that is pulled over the opposite one, and out of the image.
    page.click("text=dog, proposed")
    drag(page, (120, 10), (199, 99.5))
    saved(page)
    moved = {**box("owl", [40, 10, 100, 70], "right"), "proposed": {"class": "cat", "xyxy": CAT}}
    same(last(folder, "a.png"), moved, box("dog", [180, 90, 199, 99.5], "right", DOG))
    assert last(folder, "a.png")["tags"] == {"owl": True}
    # What is rejected is the box as it was proposed.
    page.click("text=owl, right")
    page.keyboard.press("Delete")
    saved(page)
    assert last(folder, "a.png")["boxes"][0] == box("cat", CAT, "wrong", CAT)
    # The tag that only this box had set goes with it.
    assert last(folder, "a.png")["tags"] == {}
    page.keyboard.press("Delete")
    shows(page, "a.png", "cat, proposed", "dog, right")
    # A box that was drawn and is rejected is gone; d draws within the selected box, which d and Escape do not move.
    page.keyboard.press("Escape")
    page.click("text=cat, proposed")
    page.keyboard.press("d")
    drag(page, (40, 40), (60, 60))
    shows(page, "a.png", "cat, proposed", "dog, right", "cat, right")
    page.keyboard.press("x")
    shows(page, "a.png", "cat, proposed", "dog, right")


def test_tags_counts_and_completeness(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    cat, dog, owl = page.locator("#classes li").all()
    # Absent: its boxes are wrong. Unknown: only what was right is open again.
    cat.get_by_role("button", name="absent").click()
    shows(page, "a.png", "cat, rejected", "dog, proposed")
    owl.get_by_role("button", name="unknown").click()
    dog.get_by_label("Number of objects").fill("many")
    page.keyboard.press("Enter")
    expect(dog.get_by_label("Number of objects")).to_have_attribute("aria-invalid", "true")
    dog.get_by_label("Number of objects").fill("2+")
    page.keyboard.press("Enter")
    dog.get_by_text("all boxed").click()
    shows(page, "a.png", "cat, rejected", "dog, right")
    saved(page)
    said = last(folder, "a.png")
    assert (said["tags"], said["counts"], said["complete"]) == ({"cat": False, "owl": None}, {"dog": "2+"}, ["dog"])
    assert said["boxes"] == [box("cat", CAT, "wrong", CAT), box("dog", DOG, "right", DOG)]
    # By keyboard: present, absent, unknown; without a right box nothing is complete.
    page.keyboard.press("2")
    page.keyboard.press("t")
    page.keyboard.press("t")
    saved(page)
    said = last(folder, "a.png")
    assert said["tags"] == {"cat": False, "dog": None, "owl": None} and said["complete"] == []
    # The dog's box was wrong as long as the class was absent.
    shows(page, "a.png", "cat, rejected", "dog, proposed")
    assert said["boxes"] == [box("cat", CAT, "wrong", CAT)]
    expect(dog.get_by_role("button", name="unknown")).to_have_attribute("aria-pressed", "true")
    for _ in range(5):
        page.keyboard.press("u")
    expect(page.locator("#undo")).to_be_enabled()
    page.keyboard.press("u")
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    expect(page.locator("#undo")).to_be_disabled()
    page.keyboard.press("c")
    shows(page, "a.png", "cat, proposed", "dog, right")
    saved(page)
    assert last(folder, "a.png")["complete"] == ["dog"]


def test_a_box_of_a_class_that_is_called_unknown_is_not_accepted(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.locator("#classes li").nth(0).get_by_role("button", name="unknown").click()
    page.keyboard.press("Shift+Enter")
    shows(page, "b.png", "dog, proposed")
    saved(page)
    said = last(folder, "a.png")
    assert (said["tags"], said["boxes"], said["complete"]) == ({"cat": None}, [box("dog", DOG, "right", DOG)], ["dog"])


def test_a_tag_stays_if_a_person_set_it_and_not_only_a_box(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    owl = page.locator("#classes li").nth(2)
    for by_hand in (False, True):
        if by_hand:
            owl.get_by_role("button", name="present").click()
        page.keyboard.press("3")
        page.keyboard.press("d")
        drag(page, (90, 20), (110, 40))
        shows(page, "a.png", "cat, proposed", "dog, proposed", "owl, right")
        saved(page)
        assert last(folder, "a.png")["tags"] == {"owl": True}
        page.keyboard.press("x")
        shows(page, "a.png", "cat, proposed", "dog, proposed")
        saved(page)
        assert last(folder, "a.png")["tags"] == ({"owl": True} if by_hand else {})


def test_a_box_that_is_rejected_and_taken_back_on_an_image_that_is_done_is_right(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    shows(page, "a.png", "cat, right", "dog, right")
    page.click("text=cat, right")
    page.keyboard.press("x")
    shows(page, "a.png", "cat, rejected", "dog, right")
    page.keyboard.press("x")
    shows(page, "a.png", "cat, right", "dog, right")
    saved(page)
    assert last(folder, "a.png")["boxes"] == [box("cat", CAT, "right", CAT), box("dog", DOG, "right", DOG)]


def test_a_key_waits_for_what_is_dragged(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.mouse.move(*place(page, 80, 50))
    page.mouse.down()
    page.mouse.move(*place(page, 100, 50), steps=3)
    for key in ("Enter", "ArrowRight", "u", "Control+z"):
        page.keyboard.press(key)
    page.mouse.up()
    shows(page, "a.png", "cat, right", "dog, proposed")
    saved(page)
    same(last(folder, "a.png"), box("cat", [20, 20, 100, 80], "right", CAT))
    assert {line["image"] for line in lines(folder)} == {"a.png"} and "done" not in last(folder, "a.png")


def test_a_palm_beside_a_pen_draws_nothing(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")

    def point(kind: str, pointer: int, x: float, y: float, device: str) -> None:
        left, top = place(page, x, y)
        page.evaluate(
            """([kind, pointerId, clientX, clientY, pointerType]) => {
                const figure = document.getElementById("figure");
                figure.setPointerCapture = () => {};
                figure.dispatchEvent(new PointerEvent(kind, { pointerId, clientX, clientY, pointerType, isPrimary: true,
                  button: kind === "pointermove" ? -1 : 0, bubbles: true, cancelable: true }));
            }""",
            [kind, pointer, left, top, device],
        )

    point("pointerdown", 1, 80, 50, "pen")
    point("pointermove", 1, 90, 50, "pen")
    point("pointerdown", 2, 150, 95, "touch")
    point("pointermove", 2, 155, 95, "touch")
    point("pointermove", 1, 100, 50, "pen")
    point("pointerup", 1, 100, 50, "pen")
    point("pointerup", 2, 155, 95, "touch")
    shows(page, "a.png", "cat, right", "dog, proposed")
    saved(page)
    same(last(folder, "a.png"), box("cat", [20, 20, 100, 80], "right", CAT))


def test_what_cannot_be_saved_is_sent_again(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.route("**/images/*", lambda route: route.abort())
    page.click("text=dog, proposed")
    page.keyboard.press("x")
    expect(page.locator("#saved")).to_have_text("not saved")
    expect(page.locator("#error")).to_contain_text("the server does not answer")
    page.click("text=cat, proposed")
    page.keyboard.press("x")
    assert lines(folder) == []
    page.unroute("**/images/*")
    saved(page)
    expect(page.locator("#error")).to_have_text("")
    wrong = [box("cat", CAT, "wrong", CAT), box("dog", DOG, "wrong", DOG)]
    assert last(folder, "a.png")["boxes"] == wrong


def test_a_step_after_one_whose_answer_got_lost_is_saved(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/images/0*", lose)
    page.click("text=dog, proposed")
    page.keyboard.press("x")
    expect(page.locator("#saved")).to_have_text("not saved")
    page.click("text=cat, proposed")
    page.keyboard.press("x")
    page.unroute("**/images/0*")
    saved(page)
    expect(page.locator("#error")).to_have_text("")
    wrong = [box("cat", CAT, "wrong", CAT), box("dog", DOG, "wrong", DOG)]
    assert last(folder, "a.png")["boxes"] == wrong and len(lines(folder)) >= 2


def test_an_image_whose_labels_are_refused_is_not_done(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    refusal = {"status": 422, "json": {"error": "a box leaves its image"}}
    page.route(
        "**/images/2*", lambda route: route.fulfill(**refusal) if route.request.method == "POST" else route.fallback()
    )
    for name in ("b.png", "c.png"):
        page.keyboard.press("Enter")
        expect(page.locator("#name")).to_have_text(name)
    page.keyboard.press("Enter")
    expect(page.locator("#error")).to_have_text("Not saved: a box leaves its image")
    shows(page, "c.png", "owl, right", "owl, right")
    expect(page.locator("#count")).to_have_text("Image 3, 2 of 3 done")
    page.unroute("**/images/2*")
    page.keyboard.press("Enter")
    expect(page.locator("#end")).to_be_visible()
    saved(page)
    assert last(folder, "c.png")["done"]


def test_a_refusal_does_not_hold_back_the_other_images(visit: Visit, folder: Path) -> None:
    page = visit()
    page.route("**/images/0*", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    page.reload()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.keyboard.press("Enter")
    expect(page.locator("#saved")).to_have_text("not saved")
    shows(page, "b.png", "dog, proposed")
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("c.png")
    refusal = {"status": 409, "json": {"error": "the server has another queue; reload the page"}}
    page.route("**/images/0*", lambda route: route.fulfill(**refusal))
    expect(page.locator("#count")).to_have_text("Image 3, 1 of 3 done")
    expect(page.locator("#saved")).to_have_text("not saved")
    expect(page.locator("#error")).to_have_text("Not saved: the server has another queue; reload the page")
    assert [line["image"] for line in lines(folder)] == ["b.png"]


def test_an_undo_is_saved_also_if_the_person_moves_on_at_once(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    page.keyboard.press("Enter")
    shows(page, "b.png", "dog, proposed")
    saved(page)
    # Both keys within one task: the image that is opened again has no time to be shown.
    page.evaluate(
        "for (const key of ['u', 'ArrowRight']) document.body.dispatchEvent("
        "new KeyboardEvent('keydown', { key, bubbles: true }))"
    )
    shows(page, "b.png", "dog, proposed")
    saved(page)
    assert [(line["image"], line.get("done", False)) for line in lines(folder)] == [("a.png", True), ("a.png", False)]


def test_an_image_that_is_gone_is_named_and_passed_over(visit: Visit, folder: Path) -> None:
    (folder / "data" / "b.png").write_bytes(b"")
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    held: list[Route] = []
    page.route(
        "**/images/0*", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    page.keyboard.press("Enter")
    expect(page.locator("#error")).to_contain_text("b.png: the file is empty")
    # That the image before is saved only now says nothing of this one.
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    saved(page)
    expect(page.locator("#error")).to_contain_text("b.png: the file is empty")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    shows(page, "c.png", "owl, proposed", "owl, proposed")
    assert [line["image"] for line in lines(folder)] == ["a.png"]


def test_a_review_by_finger_on_a_phone(visit: Visit, folder: Path) -> None:
    page = visit(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.touchscreen.tap(*place(page, 150, 50))
    page.click("#reject")
    shows(page, "a.png", "cat, proposed", "dog, rejected")
    # From the middle of the right edge of the cat.
    touches = [{"x": x, "y": y} for x, y in (place(page, 80, 50), place(page, 90, 50), place(page, 100, 50))]
    client = page.context.new_cdp_session(page)
    for kind, points in (("touchStart", touches[:1]), ("touchMove", touches[1:2]), ("touchMove", touches[2:])):
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    shows(page, "a.png", "cat, right", "dog, rejected")
    page.click("#accept")
    expect(page.locator("#name")).to_have_text("b.png")
    saved(page)
    same(last(folder, "a.png"), box("cat", [20, 20, 100, 80], "right", CAT), box("dog", DOG, "wrong", DOG))


def test_names_are_never_markup(visit: Visit, folder: Path) -> None:
    page = visit()
    shows(page, "a.png", "cat, proposed", "dog, proposed")
    hostile = "<img src=x onerror=document.title='taken'>"
    page.evaluate("document.title = 'kept'")
    page.route("**/queue", lambda route: route.fulfill(json={**route.fetch().json(), "run": hostile}))
    page.reload()
    expect(page.locator("#run")).to_have_text(f"{hostile}, ann")
    assert page.title() == "Boxless review"
