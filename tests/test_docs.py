"""The documentation is true: commands parse, settings exist, numbers are those of the data, the site builds."""

import ast
import csv
import importlib.metadata
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
import typer
import yaml
from playwright.sync_api import Browser
from sphinx.application import Sphinx

import boxless
from boxless.cli import app
from boxless.config import HeadConfig, Section, parse_proposals, resolve
from boxless.methods import DEFAULT_METHOD, PRESETS, MILConfig, preset
from boxless.metrics import errors, summary

# Sphinx's extensions warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
README = (ROOT / "README.md").read_text()
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


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(name: str):
    """Sphinx checks those of the other pages."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_scripts_that_are_mentioned_exist(page: Path):
    for script in re.findall(r"\b((?:benchmarks|tools|docs/examples)/\w+\.\w+)", page.read_text()):
        assert (ROOT / script).exists(), script


def test_there_are_command_lines_to_check():
    assert sum(len(list(commands(page))) for page in PAGES) > 30
    assert sum(len(mentions(page)) for page in PAGES) > 15


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


def test_every_example_is_shown_and_tested():
    shown = re.findall(r"^```{literalinclude} examples/(\w+)\.py$", (DOCS / "extending.md").read_text(), re.MULTILINE)
    examples = {file.stem for file in (DOCS / "examples").glob("*.py")}
    tested = {file.stem.removeprefix("test_example_") for file in (ROOT / "tests" / "examples").glob("test_*.py")}
    assert sorted(shown) == sorted(examples) and examples == tested
    assert len(examples) == 7


def test_the_readme_is_short():
    assert len(README.split()) <= 900


def test_the_citation_names_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == importlib.metadata.version("boxless")


def test_numbers_are_those_of_the_benchmarks():
    """The tables of the benchmarks and of the README have the numbers that the chart is drawn from."""
    with (ROOT / "benchmarks" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    animals, cards = (DOCS / "benchmarks.md").read_text().partition("## Playing cards")[::2]
    for row in rows:
        section = animals if row["benchmark"] == "animals" else cards
        name = row["method"].replace("upper-bound", "upper bound")
        lines = re.findall(rf"^\| `?{name}`? \| .*$", section, re.MULTILINE)
        cells = [f" {row['mean']} ({row['min']}-{row['max']}) |"]
        cells += [f" {row['mean']} |"] if row["min"] == row["max"] else []
        assert any(cell in line for cell in cells for line in lines), row
    means = {(row["method"], row["score"]): row["mean"] for row in rows if row["benchmark"] == "animals"}
    full = float(means["upper-bound", "mAP_area"])
    table = re.findall(r"^\| (?:`(\w+)`|upper bound).*?((?: \| [\d.]+){4}) \|$", README, re.MULTILINE)
    assert len(table) == 4
    for method, numbers in table:
        area, corloc, minutes, share = numbers.removeprefix(" | ").split(" | ")
        name = method or "upper-bound"
        assert (area, corloc, minutes) == tuple(means[name, key] for key in ("mAP_area", "CorLoc", "minutes"))
        assert float(share) == round(float(area) / full, 2)


QUICK = ["backbone.name=regnety_002", "backbone.weights=none", "views.scales=[96]", "training.epochs=1"]
QUICK += ["proposals.generator=grid", "proposals.min_area=0.05", "head.hidden=[16]"]


def test_the_composition_without_code_trains(demo: Path, tmp_path: Path):
    (text,) = blocks(DOCS / "extending.md", "yaml")
    (tmp_path / "clusters.yaml").write_text(text)
    detector = boxless.train(demo, tmp_path / "run", config=tmp_path / "clusters.yaml", split="train", options=QUICK)
    head = detector.config.head
    assert isinstance(head, MILConfig) and head.refinement is not None
    assert (head.unit_rms, head.refinement.mining) == (True, "clusters")
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


def sections(section: type[Section]) -> Iterator[type[Section]]:
    """All sections of the configuration within the package, without the bases of heads."""
    for kind in section.__subclasses__():
        yield from sections(kind)
        if kind.__module__.startswith("boxless.") and (not issubclass(kind, HeadConfig) or "kind" in kind.model_fields):
            yield kind


def test_every_command_and_option_is_on_the_page(site: Path):
    page = (site / "cli.html").read_text()
    for name, verb in VERBS.commands.items():
        assert f'<span class="pre">{name}</span></code><a class="headerlink"' in page, name
        for option in verb.params:
            if option.param_type_name == "option" and option.name != "help":
                assert f'<span class="pre">{option.opts[0]}</span>' in page, option.opts


def test_conventions_and_settings_are_those_of_the_code(site: Path):
    metrics, settings = ((site / f"{name}.html").read_text() for name in ("metrics", "settings"))
    for name in (*summary.CONVENTIONS, *errors.CONVENTIONS):
        assert f">{name}</span></code></dt>" in metrics, name
    for section in sections(Section):
        for name, field in section.model_fields.items():
            # A section within a section is a heading, and so is the kind of a head.
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
