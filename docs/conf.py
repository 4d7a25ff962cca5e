"""Sphinx: how this site is built, and the directives that take what they show from the code."""

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any, get_args

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from boxless.config import Config, Section
from boxless.methods.presets import PRESETS

project = "Boxless"
author = "The Boxless authors"
copyright = author
version = release = importlib.metadata.version("boxless")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# In docstrings single backticks are code, as in Markdown.
default_role = "code"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# "FloatArray" says more than what it is short for.
autodoc_type_aliases = {name: name for name in ("FloatArray", "IntArray", "BoolArray")}
python_maximum_signature_line_length = 88

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "Boxless"
html_copy_source = False
html_show_copyright = False


class FromCode(SphinxDirective):
    """A directive without content that renders Markdown made from the code."""

    def markdown(self) -> str:
        """What is to be shown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse it where the directive stands."""
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)


class Conventions(FromCode):
    """`CONVENTIONS` of the module named, a definition each."""

    required_arguments = 1

    def markdown(self) -> str:
        """A definition list."""
        conventions = importlib.import_module(self.arguments[0]).CONVENTIONS
        return "\n\n".join(f"`{name}`\n: {meaning}" for name, meaning in conventions.items())


class Settings(FromCode):
    """All settings with their defaults and meanings: a heading and a table for each section of the configuration."""

    def markdown(self) -> str:
        """Sections in the order of the configuration."""
        return "\n\n".join(_table(key, section) for key, section in _sections("", Config))


def _sections(key: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """A section and all within it, each with the key that leads to it."""
    yield key, section
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from _sections(f"{key}.{name}".lstrip("."), kind)


def _table(key: str, section: type[Section]) -> str:
    fields, told = section.model_fields, section.__doc__ or ""
    heading = f"`{key}`" if key else "Of the whole run"
    if "kind" in fields:
        heading += f" with `kind: {fields['kind'].default}`"
    rows = [
        f"| `{name}` | {_default(fields[name].default, fields[name].is_required())} | {meaning} |"
        for name, meaning in _meanings(told).items()
        if not isinstance(fields[name].default, Section)
    ]
    table = ["| setting | default | meaning |", "|---|---|---|", *rows]
    return "\n\n".join([f"### {heading}", told.partition("\n")[0], "\n".join(table)])


def _default(value: Any, required: bool) -> str:
    return (
        "the preset's name"
        if required
        else f"`{yaml.safe_dump(_plain(value), default_flow_style=True).split(chr(10))[0]}`"
    )


def _meanings(docstring: str) -> dict[str, str]:
    """The rows below `Args:` of a Google-style docstring, each on one line."""
    rows = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", docstring.partition("Args:\n")[2], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", meaning).replace("|", r"\|") for name, meaning in rows}


class Presets(FromCode):
    """What every preset sets; all else is at its default."""

    def markdown(self) -> str:
        """A heading and a block of YAML for each method."""
        blocks = [(name, yaml.safe_dump(_plain(settings), sort_keys=False)) for name, settings in PRESETS.items()]
        return "\n\n".join(f"### The preset `{name}`\n\n```yaml\n{text}```" for name, text in blocks)


def _plain(value: Any) -> Any:
    """The same with lists for tuples, which YAML does not have."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def keep_sentence(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon for the type returned; in these docstrings it begins the sentence."""
    for row, line in enumerate(lines[:-1]):
        if line.strip() == "Returns:":
            lines[row + 1] = re.sub(r":( |$)", r" –\1", lines[row + 1], count=1)


def setup(app: Sphinx) -> None:
    """Make the directives known, and have docstrings mended before napoleon (priority 500) reads them."""
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)
    app.add_directive("conventions", Conventions)
    app.add_directive("settings", Settings)
    app.add_directive("presets", Presets)
