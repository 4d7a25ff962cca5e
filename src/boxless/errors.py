"""The errors that Boxless raises for causes outside its code. Each message names the thing and the mend."""


class BoxlessError(Exception):
    """Anything a user can mend: a wrong path, a wrong option, data that does not fit together."""


class ImageError(BoxlessError):
    """One image that cannot be read. Stages that walk over many images report it, skip it and go on."""
