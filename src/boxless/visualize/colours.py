"""Colours that colour-blind readers can distinguish."""

Colour = tuple[int, int, int]

# Okabe and Ito, Color Universal Design (2008), without black, most conspicuous first.
OKABE_ITO: dict[str, Colour] = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "green": (0, 158, 115),
    "purple": (204, 121, 167),
    "yellow": (240, 228, 66),
    "vermilion": (213, 94, 0),
    "blue": (0, 114, 178),
}


def page_colours(colour: Colour) -> dict[str, str]:
    """A colour and the text colour on it, as the pages take them."""
    return {"colour": hex_colour(colour), "ink": text_colour_on(colour)}


def hex_colour(colour: Colour) -> str:
    """A colour as HTML has it, such as `#e69f00`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def text_colour_on(colour: Colour) -> str:
    """The text colour, `black` or `white`, with the higher contrast to a background colour, as WCAG 2 defines it."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast is (lighter + 0.05) / (darker + 0.05).
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"
