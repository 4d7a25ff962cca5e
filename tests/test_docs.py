"""What the documentation says can be done: commands parse, settings exist, worked examples run, the site is whole."""

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
import torch
import typer
from playwright.sync_api import Browser
from sphinx.application import Sphinx

import boxless
from boxless.cli import app
from boxless.config import MILConfig, Section, parse_proposals, resolve
from boxless.methods import PRESETS, preset
from boxless.methods.presets import DEFAULT_METHOD
from boxless.methods.refinement import MINING
from boxless.metrics import errors, summary

# Of Sphinx's extensions among each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
VERBS: click.Group = typer.main.get_command(app)  # type: ignore[assignment]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without the indent that a list gives them."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `boxless` of every command line in a console block."""
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["boxless"]:
                yield words[1:]


def mentions(page: Path) -> list[str]:
    """Every `boxless verb ...` in running text and tables."""
    return re.findall(r"`boxless ([a-z][^`]*)`", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_parse_and_their_settings_exist(page: Path):
    for words in commands(page):
        context = VERBS.commands[words[0]].make_context(words[0], words[1:])
        given = context.params
        if words[0] == "train" and given["config"] is None:
            resolve(preset(given["method"] or DEFAULT_METHOD), options=given["settings"] or [])
        if words[0] == "proposals":
            parse_proposals(given["settings"] or [])
        if given.get("config") is not None and given["config"].parts[0] == "configs":
            assert (ROOT / given["config"]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_verbs_and_options_that_are_mentioned_exist(page: Path):
    for text in mentions(page):
        verb, *words = text.split()
        assert verb in VERBS.commands, text
        known = {name for option in VERBS.commands[verb].params for name in option.opts}
        assert set(re.findall(r"--[a-z-]+", " ".join(words))) <= known, text


def test_there_are_command_lines_to_check():
    assert sum(len(list(commands(page))) for page in PAGES) > 30
    assert sum(len(mentions(page)) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_in_the_documentation_names_what_there_is(page: Path):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "boxless":
                assert node.attr in boxless.__all__
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("boxless"):
                exec(compile(ast.Module([node], []), page.name, "exec"), {})


def test_the_api_page_has_all_that_is_public():
    shown = set(re.findall(r"^\.\. auto\w+:: boxless\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE))
    assert shown == set(boxless.__all__)


def test_the_table_of_faults_has_all_that_the_doctor_finds():
    table = re.findall(r"^\| `([a-z ]+)` \| (\w+)", (DOCS / "tags.md").read_text(), re.MULTILINE)
    calls = [
        node
        for file in (ROOT / "src" / "boxless" / "doctor").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
    ]
    found = [(ast.literal_eval(call.args[0]), call.args[1]) for call in calls]
    assert {name for name, _ in table} == {name for name, _ in found}
    levels = dict(table)
    for name, level in found:
        assert not isinstance(level, ast.Constant) or level.value == levels[name], name


# The worked examples.


@pytest.fixture
def hull(tmp_path: Path) -> Iterator[Path]:
    """The file that the page shows; what it adds to the library is taken back."""
    (text,) = (block for block in blocks(DOCS / "extending.md", "python") if "hull.py" in block)
    (tmp_path / "hull.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for added in (MINING, PRESETS):
            patch.setitem(added, "hull", None)
            del added["hull"]
        yield tmp_path / "hull.py"


QUICK = ["backbone.weights=none", "views.scales=[96]", "training.epochs=1", "proposals.generator=grid"]
QUICK += ["proposals.min_area=0.05", "head.reduce=8"]


def test_the_rule_of_the_worked_example_takes_the_hull_of_good_neighbours(hull: Path):
    mine = runpy.run_path(str(hull))["mine_hull"]
    # IoU with the first: 1, 0.6, 0.6, 0, 0.6; the third scores too little, the fourth is elsewhere.
    boxes = torch.tensor([[10.0, 0, 50, 40], [20, 0, 60, 40], [0, 0, 40, 40], [70, 50, 99, 80], [10, 10, 50, 50]])
    scores = torch.tensor([[0.8, 0.1], [0.4, 0.1], [0.3, 0.1], [0.7, 0.9], [0.5, 0.2]])
    found = mine(boxes, scores.requires_grad_(), torch.tensor([1.0, 1]))
    assert found.boxes.tolist() == [[10, 0, 60, 50], [70, 50, 99, 80]]
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.weights, torch.tensor([0.8, 0.9]))
    assert not found.weights.requires_grad
    assert mine(boxes, scores, torch.tensor([0.0, torch.nan])).boxes.shape == (0, 4)


def test_the_worked_example_trains_as_the_page_says(hull: Path, demo: Path, monkeypatch: pytest.MonkeyPatch):
    lines = "".join(blocks(DOCS / "extending.md", "console")).splitlines()
    (line,) = (line for line in lines if line.startswith("python hull.py"))
    words = [str(demo) if word == "tags.csv" else word for word in shlex.split(line)[1:]]
    monkeypatch.chdir(hull.parent)
    monkeypatch.setattr("sys.argv", [*words, "--split", "train", *QUICK])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(hull), run_name="__main__")
    assert not stopped.value.code
    run = hull.parent / "runs" / "hull"
    assert "refine 3" in (run / "history.jsonl").read_text()
    # The run needs the file no more; another training would.
    for added in (MINING, PRESETS):
        del added["hull"]
    detector = boxless.Detector.load(run)
    assert detector.config.method == "hull"
    assert len(detector.predict(boxless.load_dataset(demo, "val").samples[0].path))
    with pytest.raises(boxless.BoxlessError, match="mining=hull is unknown; there are top, clusters, spread"):
        boxless.train(demo, run, method="oicr", options=["head.refinement.mining=hull"])


def test_the_composition_of_the_worked_example_trains(demo: Path, tmp_path: Path):
    (text,) = blocks(DOCS / "extending.md", "yaml")
    (tmp_path / "clusters.yaml").write_text(text)
    detector = boxless.train(demo, tmp_path / "run", config=tmp_path / "clusters.yaml", split="train", options=QUICK)
    head = detector.config.head
    assert isinstance(head, MILConfig) and head.refinement is not None
    assert (head.unit_rms, head.refinement.mining, head.refinement.stages) == (True, "clusters", 3)
    assert '"boxes"' in (tmp_path / "run" / "history.jsonl").read_text()


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    out = tmp_path_factory.mktemp("site")
    build = Sphinx(
        DOCS, DOCS, out, out / ".doctrees", "html", status=None, warningiserror=True, exception_on_warning=True
    )
    build.build()
    return out


class Loaded(HTMLParser):
    """Addresses of what a page loads by itself: everything that is not a link to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]


def test_pages_load_nothing_from_elsewhere(site: Path):
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert not [address for address in loaded.addresses if re.match(r"\w+:|//", address) and address[:5] != "data:"]
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text())


def test_conventions_and_settings_are_those_of_the_code(site: Path):
    metrics, settings = ((site / f"{name}.html").read_text() for name in ("metrics", "settings"))
    for name in (*summary.CONVENTIONS, *errors.CONVENTIONS):
        assert f">{name}</span></code></dt>" in metrics, name
    for section in Section.__subclasses__():
        for name, field in section.model_fields.items():
            # What is a section of its own is a heading; so is what kind of head it is.
            if not isinstance(field.default, Section) and name not in ("kind", "head"):
                row = rf'<tr class="row-\w+"><td><p><code[^>]*><span class="pre">{name}</span></code></p></td>'
                assert re.search(row, settings), f"{section.__name__}.{name}"
    for name in PRESETS:
        assert f'<span class="l l-Scalar l-Scalar-Plain">{PRESETS[name]["head"]["kind"]}</span>' in settings
        assert f'<span class="pre">{name}</span></code><a class="headerlink"' in settings


def test_every_page_fits_a_phone_and_asks_for_nothing(site: Path, browser: Browser):
    page, asked = browser.new_page(viewport={"width": 390, "height": 844}), []
    page.on("request", lambda request: asked.append(request.url))
    for file in site.glob("*.html"):
        page.goto(file.as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{file.name} is {width} px wide"
    page.close()
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
