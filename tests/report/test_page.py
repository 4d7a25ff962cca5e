import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from boxless.report.page import render_page

HOSTILE = "</script><script>alert(1)</script><!-- {{data}} \u2028 & \" ' `"


class Parsed(HTMLParser):
    """Every element with its attributes and, of those that have no elements in them, the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def all(self, name: str) -> list[tuple[dict[str, str | None], str]]:
        rows = zip(self.elements, self.texts, strict=True)
        return [(attributes, text) for (tag, attributes), text in rows if tag == name]


def test_values_from_data_never_become_markup() -> None:
    contents = {HOSTILE: [HOSTILE, 1.5, None]}
    page = Parsed(render_page(HOSTILE, contents))
    scripts = page.all("script")
    assert [attributes for attributes, _ in scripts] == [{"type": "application/json", "id": "data"}, {}]
    assert json.loads(scripts[0][1]) == contents
    assert page.all("title") == [({}, HOSTILE)]


def test_names_that_are_not_utf_8_are_escaped() -> None:
    contents = {"name": "caf\udce9.jpg"}
    page = Parsed(render_page("caf\udce9", contents).encode("utf-8").decode())
    assert json.loads(page.all("script")[0][1]) == contents
    assert page.all("title") == [({}, r"caf\udce9")]


def test_the_policy_allows_only_the_pages_own_code() -> None:
    page = Parsed(render_page("title", {}))
    policy = next(a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules: dict[str, Any] = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for name, text in (("script-src", page.all("script")[1][1]), ("style-src", page.all("style")[0][1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", render_page("title", {}))


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        render_page("title", {"score": float("nan")})
