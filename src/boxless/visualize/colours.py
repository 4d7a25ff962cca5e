"""Colours that colour-blind readers tell apart."""

Colour = tuple[int, int, int]

# Okabe and Ito, Color Universal Design (2008), without black, the colours that stand out most first.
OKABE_ITO: dict[str, Colour] = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "green": (0, 158, 115),
    "purple": (204, 121, 167),
    "yellow": (240, 228, 66),
    "vermilion": (213, 94, 0),
    "blue": (0, 114, 178),
}


def ink_on(colour: Colour) -> str:
    """Whether `black` or `white` reads better on a colour: its Rec. 601 luma decides."""
    red, green, blue = colour
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
