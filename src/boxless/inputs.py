"""Conversion of image inputs to RGB arrays."""

import os
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, TypeGuard, TypeVar, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxless.errors import ImageError
from boxless.files import expand_user
from boxless.images import MIN_SIDE, decode_image, read_image, to_array

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

ImageInput = Union[str, os.PathLike[str], NDArray[np.uint8], Image.Image, "torch.Tensor", IO[bytes]]
"""A file, an RGB array, a Pillow image, a tensor as torchvision reads it, or an open file; see `to_rgb`."""


def to_rgb(image: ImageInput) -> NDArray[np.uint8]:
    """Pixels of an image: (h, w, 3) uint8, RGB, as displayed.

    Args:
        image: a path; an array (h, w, 3) RGB or (h, w) grey, uint8; a Pillow image, whose EXIF rotation is applied; a
            tensor (3, h, w) RGB or (1, h, w) grey, uint8 or float in [0, 1], as torchvision reads it; or a file object
            opened in binary mode.

    Raises:
        ImageError: it is something else, or cannot be read.
    """
    if isinstance(image, np.ndarray):
        return _checked(_from_array(image))
    if _is_tensor(image):
        return _checked(_from_tensor(image))
    if isinstance(image, Image.Image):
        return _checked(_decoded(lambda: to_array(image)))
    if isinstance(image, str | os.PathLike):
        if str(image).startswith(("http://", "https://")):
            raise ImageError(f"{image}: addresses are not downloaded; download the file and pass its path")
        return read_image(expand_user(image))
    if _is_file(image):
        content = _decoded(image.read)
        if isinstance(content, bytes):
            return decode_image(content, str(getattr(image, "name", "file object")))
    raise ImageError(
        f"an image is a path, an array, a Pillow image, a tensor or an open binary file, not {type(image).__name__}"
    )


def _decoded(decode: Callable[[], T]) -> T:
    try:
        return decode()
    # Pillow's decoders and file objects raise many kinds of errors.
    except Exception as error:
        raise ImageError(f"the image cannot be read ({error})") from error


def _is_tensor(image: object) -> "TypeGuard[torch.Tensor]":
    # Where torch was not imported nothing is a tensor, and exported detectors run without it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _is_file(image: object) -> "TypeGuard[IO[bytes]]":
    return callable(getattr(image, "read", None))


def _from_array(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(f"an array must be (h, w, 3) uint8 RGB or (h, w) uint8 grey, not {array.shape} {array.dtype}")
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)


def _from_tensor(tensor: "torch.Tensor") -> NDArray[np.uint8]:
    import torch

    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ImageError(f"a tensor must be (3, h, w) RGB or (1, h, w) grey, not {tuple(tensor.shape)}")
    if tensor.is_floating_point():
        if tensor.numel() and not 0 <= tensor.min().item() <= tensor.max().item() <= 1:
            raise ImageError("a float tensor must hold values in [0, 1], without normalisation by mean and deviation")
        tensor = (tensor.detach().float() * 255).round().to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise ImageError(f"a tensor must be uint8 or float, not {tensor.dtype}")
    return np.ascontiguousarray(tensor.cpu().expand(3, -1, -1).permute(1, 2, 0).numpy())


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(f"{width}x{height} px; a side under {MIN_SIDE} px cannot be used")
    return pixels
