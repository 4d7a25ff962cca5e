"""The errors that Boxless raises for causes outside its code. Each message names the thing and the mend."""


class BoxlessError(Exception):
    """Anything a user can mend: a wrong path, a wrong option, data that does not fit together."""


class PictureError(BoxlessError):
    """One picture that cannot be read. Stages that walk over many pictures report it, skip it and go on."""
