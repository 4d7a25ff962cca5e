"""Sphinx: how this site is built, and the directives that render parts of the code."""

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any, get_args

import typer
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from boxless.cli import app
from boxless.config import HEADS, Config, HeadConfig, Section
from boxless.methods import PRESETS

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
        """The Markdown to render."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the Markdown in the place of the directive."""
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)


class Commands(FromCode):
    """Every verb of the command line: what it does, and a table of its arguments and options."""

    def markdown(self) -> str:
        """A section for each verb, in the order of `boxless --help`."""
        verbs: Any = typer.main.get_command(app)
        return "\n\n".join(_command(name, verb) for name, verb in verbs.commands.items())


def _command(name: str, verb: Any) -> str:
    arguments, rows = [], []
    for parameter in verb.params:
        shown = "`, `".join(parameter.opts)
        if parameter.param_type_name == "argument":
            shown = parameter.metavar or (shown.upper() if parameter.required else f"[{shown.upper()}]")
            shown += "..." if parameter.nargs == -1 and not shown.endswith("...") else ""
            arguments.append(shown)
        elif parameter.metavar:
            shown += f" {parameter.metavar}"
        default = "required" if parameter.required else "" if parameter.default is None else f"`{parameter.default}`"
        rows.append(f"| `{shown}` | {parameter.help or ''} | {default} |")
    usage = f"```text\nboxless {' '.join([name, *arguments])} [OPTIONS]\n```"
    table = _rows("| argument or option | meaning | default |", rows)
    return "\n\n".join([f"## `{name}`", verb.help, usage, table])


def _rows(header: str, rows: list[str]) -> str:
    return "\n".join([header, "|---|---|---|", *rows])


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
    """A section and all within it, each with the key that leads to it; for `head` every registered kind."""
    yield key, section
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                for own in HEADS.values() if kind is HeadConfig else (kind,):
                    yield from _sections(f"{key}.{name}".lstrip("."), own)


def _table(key: str, section: type[Section]) -> str:
    fields, told = section.model_fields, section.__doc__ or ""
    heading = f"`{key}`" if key else "The whole run"
    if "kind" in fields:
        heading += f" with `kind: {fields['kind'].default}`"
    rows = [
        f"| `{name}` | {_default(fields[name].default, fields[name].is_required())} | {meaning} |"
        for name, meaning in _meanings(told).items()
        if name in fields and name != "head" and not isinstance(fields[name].default, Section)
    ]
    return "\n\n".join([f"### {heading}", told.partition("\n")[0], _rows("| setting | default | meaning |", rows)])


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
    """Napoleon reads what precedes a colon as the type returned; in these docstrings it begins the sentence."""
    for row, line in enumerate(lines[:-1]):
        if line.strip() == "Returns:":
            lines[row + 1] = re.sub(r":( |$)", r" –\1", lines[row + 1], count=1)


def setup(app: Sphinx) -> None:
    """Register the directives, and the correction of docstrings, which precedes napoleon (priority 500)."""
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)
    app.add_directive("commands", Commands)
    app.add_directive("conventions", Conventions)
    app.add_directive("settings", Settings)
    app.add_directive("presets", Presets)
