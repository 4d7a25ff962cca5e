"""Images as people and Label Studio send them."""

import base64
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser


class _MemoryParser(MultiPartParser):
    """Keeps files in memory, whose size the guard has bounded, where Starlette's would begin a temporary file."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Forget the files, also those that broke off."""
        for file in self._files_to_close_on_error:
            file.close()


async def uploaded(request: Request) -> bytes:
    """The image in a request's form."""
    if kind(request) != "multipart/form-data":
        raise HTTPException(415, "send the image as multipart/form-data, in the field 'file'")
    parser = _MemoryParser(request.headers, request.stream(), max_files=1, max_fields=8)
    try:
        file = (await parser.parse()).get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "no image: send it as a file in the form's field 'file'")
        return await file.read()
    except MultiPartException as error:
        raise HTTPException(400, f"not a form that can be read: {error.message}") from None
    finally:
        parser.close()


def kind(request: Request) -> str:
    """The media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def task_image(task: dict[str, Any], key: str, name: str) -> bytes:
    """The image in a task's data.

    Args:
        task: Label Studio's.
        key: of its data, where the image is.
        name: what errors call it.
    """
    data = task.get("data")
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise HTTPException(422, f"{name}: its data has no '{key}', which the labeling config takes the image from")
    head, comma, content = value.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise HTTPException(
            422,
            f"{name}: '{key}' is a path or an address, and this server follows none; import tasks with the images as "
            "data URIs (data:image/jpeg;base64,...), or import what boxless predict --format label-studio writes",
        )
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise HTTPException(422, f"{name}: '{key}' is no base64 ({error})") from None
