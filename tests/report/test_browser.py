"""The report as a person uses it: in a real browser, by mouse and by keyboard."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from boxless.report import write_report

Open = Callable[..., Page]

CONTRASTS = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parse(colour).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parse(colour).length === 3 || parse(colour)[3] === 1) return colour;
    }
    throw new Error("no ground");
  };
  const contrasts = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("script, svg, option")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
    contrasts[walker.currentNode.data.slice(0, 60)] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return contrasts;
}"""
"""WCAG contrast of every visible text with its background."""


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens a file; at the end no page may have requested another file or logged an error."""
    requested: list[str] = []
    opened: list[str] = []
    errors: list[str] = []
    contexts = []

    def visit(file: Path, scheme: str = "light", width: int = 1280) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        opened.append(file.as_uri())
        page.goto(file.as_uri())
        page.locator("h1").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [url[:80] for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
    assert {url for url in requested if url.startswith("file:")} == set(opened)
    assert errors == []


@pytest.fixture
def contents(report: Path) -> dict[str, Any]:
    """The JSON within the report."""
    text = report.read_text(encoding="utf-8")
    return dict(json.loads(text.split('id="data">')[1].split("</script>")[0]))


def boxes(page: Page) -> int:
    return page.locator(".grid .box").count()


def slide(page: Page, stop: int) -> None:
    page.locator("#threshold").evaluate(
        "(node, stop) => { node.value = stop; node.dispatchEvent(new Event('input', { bubbles: true }));"
        "node.dispatchEvent(new Event('change', { bubbles: true })); }",
        stop,
    )


def test_the_headline_comes_first_and_hostile_names_are_text(
    report: Path, visit: Open, contents: dict[str, Any]
) -> None:
    page = visit(report)
    assert page.title() == contents["title"]
    assert page.locator(".summary li").all_inner_texts() == contents["summary"]
    assert [page.locator(".tile strong").nth(i).inner_text() for i in range(4)] == [
        f"{contents['evaluations'][0][key]:.3f}" for key in ("CorLoc", "mAP_area", "mAP_11point", "mAP_50_95")
    ]
    names = page.locator("#scores tbody th").all_inner_texts()
    assert sorted(names) == sorted(contents["manifest"]["classes"])
    assert sum("<" in name for name in names) == 2
    # An image of a hostile name would be an element by now.
    assert page.locator("img:not([src^='data:image/jpeg'])").count() == 0
    assert page.locator("script").count() == 2
    assert page.locator("#data .findings").inner_text().count("broken") >= 1 and page.get_by_text("val 1.jpg").count()


def test_the_slider_hides_boxes_below_the_threshold(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    page, threshold = visit(report), contents["gallery"]["threshold"]
    for stop in (0, len(threshold["stops"]) // 2, len(threshold["stops"]) - 1):
        slide(page, stop)
        least = threshold["stops"][stop]
        wanted = sum(box[4] >= least for image in contents["gallery"]["images"] for box in image["boxes"])
        counted = sum(rows[stop][0] for rows in threshold["counts"])
        assert boxes(page) == wanted == counted
        assert re.search(rf": {wanted} box(es)?;", page.locator("#threshold-says").inner_text())
    assert wanted < 5
    page.locator("#threshold").focus()
    page.keyboard.press("Home")
    assert boxes(page) > wanted
    assert page.locator("#threshold").get_attribute("aria-valuetext") == page.evaluate("`score ${score(threshold())}`")


def test_at_first_the_boxes_are_those_of_predict(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    page, images = visit(report), contents["gallery"]["images"]
    confident = sum(len(image["confident"]) for image in images)
    text = f"the boxes of boxless predict: {confident} box"
    assert 0 < confident == boxes(page) < sum(len(image["boxes"]) for image in images)
    assert page.locator("#threshold-says").inner_text().startswith(text)
    slide(page, 0)
    assert boxes(page) > confident and not page.locator("#threshold-first").is_checked()
    page.locator("#threshold-first").check()
    assert boxes(page) == confident and page.locator("#threshold-says").inner_text().startswith(text)


def test_precision_and_recall_are_those_of_the_curve(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    page, name = visit(report), contents["manifest"]["classes"][4]
    page.locator("#class").select_option(label=name)
    slide(page, 0)
    recall, precision = contents["curves"][4][-1]
    text = page.locator("#threshold-says").inner_text().replace("\u00a0", " ")
    assert text.endswith(f"precision {precision:.0%}, recall {recall:.0%}".replace("%", " %"))


def test_a_diagram_tells_what_scores_mean(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    section, reliability = visit(report).locator("#reliability"), contents["reliability"]
    assert "Scores are calibrated on tags" in section.locator("p").first.inner_text()
    panels = section.locator(".panel")
    assert panels.count() == sum(bool(rows) for rows in reliability["rows"]) >= 2
    assert panels.first.locator("circle[cx]").count() == len(reliability["rows"][0])
    score, share, number = reliability["rows"][0][0]
    title = panels.first.locator("title").first.text_content()
    assert title is not None
    assert title.replace("\u00a0", " ").startswith(f"score {score:.2f}: {share:.0%}"[:-1] + " %")
    assert f" of {number} best box" in title


def test_classes_and_kinds_select_images_and_boxes(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    page, images = visit(report), contents["gallery"]["images"]
    # A class that the detector finds.
    label = max((box for image in images for box in image["boxes"]), key=lambda box: box[4])[5]
    name = contents["manifest"]["classes"][label]
    slide(page, len(contents["gallery"]["threshold"]["stops"]) - 1)
    page.locator("#class").select_option(label=name)
    shown = page.locator(".card").count()
    best = max(box[4] for image in images for box in image["boxes"])
    assert shown == sum(
        label in image["tags"] or any(b[4] >= best and b[5] == label for b in image["boxes"]) for image in images
    )
    assert 0 < shown < len(images)
    slide(page, 0)
    assert set(page.locator(".grid .box").all_inner_texts()) == {name}
    # Back to all, by the button of a kind.
    kinds = [box[6] for image in images for box in image["boxes"] if box[6]]
    kind = next(kind for kind in kinds if kind != "correct")
    page.locator(f"[data-kind='{kind}']").click()
    assert page.locator(f"[data-kind='{kind}']").get_attribute("aria-pressed") == "true"
    assert page.locator("input[name=order]:checked").input_value() == "worst"
    assert page.locator("#class").input_value() == ""
    assert boxes(page) == kinds.count(kind)


def test_kinds_of_errors_can_be_chosen_where_nothing_was_detected(report: Path, tmp_path: Path, visit: Open) -> None:
    """As a report then has it: without the order of the worst."""
    page, found = (
        report.read_text(encoding="utf-8"),
        re.compile(r'(<script type="application/json" id="data">)(.*?)(</script>)', re.S),
    )
    data = json.loads(found.search(page)[2])  # type: ignore[index]
    del data["gallery"]["orders"]["worst"]
    for image in data["gallery"]["images"]:
        image["boxes"], image["confident"] = [], []
    content = json.dumps(data).replace("<", "\\u003c")
    (tmp_path / "none.html").write_text(found.sub(lambda part: part[1] + content + part[3], page), encoding="utf-8")
    opened = visit(tmp_path / "none.html")
    assert opened.locator("[data-kind]").count() > 1
    for button in opened.locator("[data-kind]").all():
        button.click()
        assert opened.locator(".card").count() == 0
    opened.locator("#class").select_option(index=1)
    assert opened.locator("input[name=order]:checked").input_value() == "confident"


def test_an_image_opens_by_keyboard_and_closes_again(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    page = visit(report)
    names = [contents["gallery"]["images"][row]["name"] for row in contents["gallery"]["orders"]["confident"][""]]
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    heading = page.locator("dialog h2")
    assert heading.inner_text() == names[0]
    assert page.locator("dialog canvas").count() == 1
    assert page.evaluate("document.activeElement.textContent") == "Close"
    page.keyboard.press("ArrowRight")
    assert heading.inner_text() == names[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert heading.inner_text() == names[-1]
    maps = page.locator("dialog input[name=map]")
    before = page.locator("dialog canvas").get_attribute("data-map")
    other = next(one for one in maps.all() if not one.is_checked())
    other.check()
    assert page.locator("dialog canvas").get_attribute("data-map") == other.input_value() != before
    page.locator("#threshold-open").focus()
    page.keyboard.press("End")
    assert page.locator("#threshold").input_value() == page.locator("#threshold-open").input_value()
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # The browser restores the focus and updates the page a moment later.
    there = "name => document.activeElement.getAttribute('aria-label')?.startsWith(name)"
    page.wait_for_function(there, arg=names[-1], timeout=5000)


def test_heatmaps_are_drawn_over_the_images_and_brightest_at_the_peak(
    report: Path, visit: Open, contents: dict[str, Any]
) -> None:
    page, count = visit(report), len(contents["gallery"]["images"])
    assert page.locator(".grid canvas").count() == 0
    page.locator("label", has_text="heatmaps").click()
    assert page.locator(".grid canvas").count() == count
    page.locator(".card").first.click()
    canvas, shown = page.locator("dialog canvas").bounding_box(), page.locator("dialog img").nth(1).bounding_box()
    assert canvas == shown
    brightest, peak = page.evaluate(
        """() => {
          const canvas = document.querySelector("dialog canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          const sums = Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i] + pixels[4 * i + 1]);
          const values = [...atob(gallery.images[state.open].maps[state.map])].map((c) => c.charCodeAt(0));
          return [sums.indexOf(Math.max(...sums)), values.indexOf(Math.max(...values))];
        }"""
    )
    assert brightest == peak


def test_ground_truth_is_drawn_in_its_place(report: Path, visit: Open, contents: dict[str, Any]) -> None:
    page = visit(report)
    page.locator(".card").first.click()
    image = contents["gallery"]["images"][contents["gallery"]["orders"]["confident"][""][0]]
    shown, drawn = page.locator("dialog img").first.bounding_box(), page.locator("dialog .object").first.bounding_box()
    assert shown is not None and drawn is not None
    scale = shown["width"] / image["size"][0]
    x1, y1, x2, y2 = image["ground_truth"][0][:4]
    wanted = [shown["x"] + scale * x1, shown["y"] + scale * y1, scale * (x2 - x1), scale * (y2 - y1)]
    assert [drawn[key] for key in ("x", "y", "width", "height")] == pytest.approx(wanted, abs=1)
    page.keyboard.press("Escape")
    assert page.locator(".grid .object").count() > 0
    page.locator("label", has_text="ground truth").click()
    assert page.locator(".grid .object").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(report: Path, visit: Open, scheme: str) -> None:
    page = visit(report, scheme)
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (grounds == "rgb(255, 255, 255)") == (scheme == "light")
    page.evaluate("for (const node of document.querySelectorAll('details')) node.open = true")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert {text: contrast for text, contrast in contrasts.items() if contrast < 4.5} == {}


def test_everything_has_a_name_and_fits_a_phone(report: Path, visit: Open) -> None:
    page = visit(report, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = """() => [...document.querySelectorAll("button, input, select, svg, [role=img], [role=region]")]
      .filter((node) => !(node.ariaLabel || node.textContent.trim() || node.labels?.length))
      .map((node) => node.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.locator(".card").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 390
    assert page.evaluate(nameless) == []
    # The first stop of the keyboard leads past everything.
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_without_data_there_is_no_gallery_and_no_error(run: Path, visit: Open, tmp_path: Path) -> None:
    write_report(run, tmp_path / "bare.html")
    page = visit(tmp_path / "bare.html")
    assert page.locator("nav a").all_inner_texts() == ["Training", "Manifest"]
    # Three losses and the learning rate, and of the CAM one loss and the rate.
    assert page.locator("#training svg").count() == 6
    assert page.locator(".card").count() == 0


def test_saved_evaluations_are_shown_without_images(
    run: Path, data: Path, report: Path, contents: dict[str, Any], visit: Open, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name, key in (("metrics", "evaluations"), ("diagnosis", "diagnoses")):
        (copy / f"{name}-val.json").write_text(json.dumps(contents[key][0]))
    write_report(copy, tmp_path / "left.html")
    page = visit(tmp_path / "left.html")
    assert page.locator("nav a").all_inner_texts() == ["Scores", "Errors", "Training", "Manifest"]
    assert page.locator(".stack [role=img]").count() > 1
    assert page.locator("#errors button").count() == 0


def test_data_with_tags_only_is_shown_without_metrics_of_boxes(
    run: Path, data: Path, visit: Open, tmp_path: Path
) -> None:
    rows = "".join(f"{data}/images/train {i}.jpg,{name}\n" for i, name in enumerate(["gift", "ladybird"] * 3))
    (tmp_path / "tags.csv").write_text(f"image,tags\n{rows}")
    write_report(run, tmp_path / "tags.html", tmp_path / "tags.csv")
    page = visit(tmp_path / "tags.html")
    assert page.locator("#scores").get_by_text("boxes were not evaluated").count() == 1
    assert page.locator("nav a").all_inner_texts() == [
        "Scores",
        "Images",
        "Reliability",
        "Data",
        "Training",
        "Manifest",
    ]
    assert page.locator("input[name=order]").count() == 2
    assert page.locator(".tile").count() == 1
    assert re.fullmatch(r"the boxes of boxless predict: \d+ box(es)?", page.locator("#threshold-says").inner_text())
