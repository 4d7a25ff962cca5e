"""Numbers and their nouns in messages."""


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
