"""The served page in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from serving import SCORES, encoded, known_detector, served

from boxless.server import Limits

STROKES = {"cat": "#e69f00", "dog": "#56b4e9", "owl": "#009e73"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(known_detector(), Limits(size=100_000)) as address:
        yield address


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page; an error or a refused request in its console fails the test, as does a request that leaves it."""
    context = browser.new_context()
    expect.set_options(timeout=30_000)  # Of a machine that has much else to do.
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url))
    page.goto(url)
    expect(page.locator("#about")).to_have_text("Detects cat, dog, owl (method quarters).")
    yield page
    context.close()
    assert [text for text in wrong if "status of 4" not in text] == []


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "an image.png"
    path.write_bytes(encoded())
    return path


def boxes(page: Page) -> list[list[str | None]]:
    """Colour and place of every box drawn, the highest score last."""
    drawn = page.locator("#boxes rect[stroke]").all()
    return [[one.get_attribute(key) for key in ("stroke", "x", "y", "width", "height")] for one in drawn]


CAT = [STROKES["cat"], "0", "0", "48", "32"]
DOG = [STROKES["dog"], "0", "32", "96", "32"]
OWL = [STROKES["owl"], "80", "0", "16", "16"]


def drop(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    page.wait_for_selector("#result:not([hidden])")


def slide(page: Page, value: float) -> None:
    page.locator("#threshold").fill(str(value))


def test_an_image_is_processed_and_the_slider_sets_the_threshold(page: Page, image: Path) -> None:
    drop(page, image)
    assert page.locator("#status").inner_text() == "an image.png, 96 × 64 pixels"
    assert boxes(page) == [DOG, CAT] and page.locator("#labels span").all_inner_texts() == ["dog 0.60", "cat 0.90"]
    assert page.locator("#confident").get_attribute("aria-pressed") == "true"
    slide(page, 0)
    assert boxes(page) == [OWL, DOG, CAT]
    assert page.locator("#confident").get_attribute("aria-pressed") == "false"
    # 0.9 of the cube of the best score, 0.9: 0.66.
    slide(page, 0.9)
    assert boxes(page) == [CAT] and page.locator("#threshold-value").inner_text() == "0.66"
    slide(page, 1)
    assert boxes(page) == [CAT]
    page.click("#confident")
    assert boxes(page) == [DOG, CAT] and page.locator("#count").inner_text() == "2 boxes"
    assert page.locator("#rows tr").all_inner_texts() == ["cat\t0.90\t0, 0, 48, 32", "dog\t0.60\t0, 32, 96, 64"]


def test_classes_are_filtered_by_keyboard(page: Page, image: Path) -> None:
    drop(page, image)
    names = [text.split() for text in page.locator("#classes label").all_inner_texts()]
    assert names == [[name, f"{score:.2f}"] for name, score in SCORES.items()]
    page.focus("#classes input[value=cat]")
    page.keyboard.press("Space")
    assert boxes(page) == [DOG]
    page.click("#none")
    assert boxes(page) == [] and page.locator("#count").inner_text() == "0 boxes"
    page.focus("#all")
    page.keyboard.press("Enter")
    assert boxes(page) == [DOG, CAT]


def test_heatmaps_are_shown_over_the_image(page: Page, image: Path) -> None:
    drop(page, image)
    assert page.locator("#heat").is_hidden()
    page.click("[aria-label='Heatmap of dog']")
    shown, tile = page.locator("#heat"), page.locator("[aria-label='Heatmap of dog']")
    assert shown.is_visible() and tile.get_attribute("aria-pressed") == "true"
    assert shown.get_attribute("src") == tile.locator("img").nth(1).get_attribute("src")
    # Jet over the map: red below, where the dog is, blue above.
    above, below = (colour(page, place) for place in (0.2, 0.8))
    assert below[0] > 100 > below[2] and above[2] > 100 > above[0]
    page.locator("#strength").fill("0.2")
    assert shown.evaluate("one => one.style.opacity") == "0.2"
    page.keyboard.press("Shift+Tab")
    page.click("[aria-label='Heatmap of dog']")
    assert shown.is_hidden()


def colour(page: Page, place: float) -> Any:
    """Red, green and blue of the heatmap, so far down."""
    script = """(image, place) => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return [...context.getImageData(canvas.width / 2, canvas.height * place, 1, 1).data];
    }"""
    return page.locator("#heat").evaluate(script, place)


def test_images_can_be_dropped_anywhere(page: Page) -> None:
    script = """async (content) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], "dropped.png"));
        for (const type of ["dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        }
    }"""
    page.evaluate(script, list(encoded()))
    page.wait_for_selector("#result:not([hidden])")
    assert page.locator("#status").inner_text() == "dropped.png, 96 × 64 pixels"


def test_an_invalid_file_gives_a_message(page: Page, image: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    page.set_input_files("#file", text)
    expect(page.locator("#error")).to_have_text("the image: not an image; replace it")
    large = tmp_path / "large.png"
    large.write_bytes(encoded(size=(400, 400), noise=True))
    page.set_input_files("#file", large)
    assert page.locator("#error").inner_text() == "large.png has 0.5 MB; the maximum is 0.1 MB."
    drop(page, image)
    assert page.locator("#error").inner_text() == "" and boxes(page) == [DOG, CAT]


def test_the_page_fits_a_phone(page: Page, image: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    drop(page, image)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
