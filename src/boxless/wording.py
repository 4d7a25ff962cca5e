"""Numbers, their nouns, and times in messages."""


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """A number and its noun, such as `1 image` and `2,424 images`.

    Args:
        number: how many.
        noun: for one.
        nouns: for any other number; None adds the ending of the plural to `noun`.
    """
    if number != 1:
        noun = nouns or noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{number:,} {noun}"


def duration(seconds: float) -> str:
    """A time in its two largest units, such as `45 s`, `7 min 12 s` and `1 h 3 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min"
