"""The share of the work that one of several commands does, which need not know each other."""

import re

from boxless.errors import BoxlessError


def parse_share(text: str | None) -> tuple[int, int]:
    """What `--shards i/n` says: i and n; 1 and 1 where nothing does.

    Raises:
        BoxlessError: it is not of this form, or i is not from 1 to n.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", "1/1" if text is None else text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise BoxlessError(f"--shards {text}: takes the form i/n with i from 1 to n, such as 3/8")
    return int(match[1]), int(match[2])
