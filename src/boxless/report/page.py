"""The report as one self-contained HTML file: style, script, images and numbers."""

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any

from boxless.datasets.problems import printable


def render_page(title: str, contents: dict[str, Any]) -> str:
    """Insert contents into the page.

    No value from the data becomes markup: the script builds the page from JSON as text. The page's content security
    policy allows only its own script and style, and no requests.

    Args:
        title: of the page.
        contents: values that JSON can represent, see `contents.py`.

    Returns:
        HTML.

    Raises:
        ValueError: the contents hold NaN or an infinity.
    """
    style, script = _asset("page.css"), _asset("page.js")
    data = json.dumps(contents, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # JSON allows these escapes: for "<", which would let a string end the HTML element, and for what is not UTF-8.
    data = printable(data.replace("<", "\\u003c"))
    slots = {
        "title": html.escape(printable(title)),
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        "style": style,
        "script": script,
        "data": data,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return resources.files("boxless.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
