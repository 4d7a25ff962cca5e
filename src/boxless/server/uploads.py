"""Images in requests: uploads in a form, and data URIs in Label Studio's tasks."""

import base64
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser


class _MemoryParser(MultiPartParser):
    """Keeps files, whose size the guard limits, in memory, where Starlette's parser writes temporary files."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Close the files, also incomplete ones."""
        for file in self._files_to_close_on_error:
            file.close()


async def uploaded(request: Request) -> bytes:
    """The image file in a request's form.

    Raises:
        HTTPException: there is none.
    """
    if kind(request) != "multipart/form-data":
        raise HTTPException(415, "send the image as multipart/form-data, in the field 'file'")
    parser = _MemoryParser(request.headers, request.stream(), max_files=1, max_fields=8)
    try:
        file = (await parser.parse()).get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "no image: send it as a file in the form's field 'file'")
        return await file.read()
    except MultiPartException as error:
        raise HTTPException(400, f"invalid form: {error.message}") from None
    finally:
        parser.close()


def kind(request: Request) -> str:
    """The media type of a request's body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def task_image(task: dict[str, Any], key: str, name: str) -> bytes:
    """The image file in the data of a Label Studio task.

    Args:
        task: the task.
        key: of the image in its data.
        name: of the task in error messages.

    Raises:
        HTTPException: the image is missing, or not a data URI.
    """
    data = task.get("data")
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise HTTPException(422, f"{name}: its data has no '{key}', the image field of the labeling config")
    head, comma, content = value.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise HTTPException(
            422,
            f"{name}: '{key}' is a path or a URL, and this server reads neither; import tasks with the images as "
            "data URIs (data:image/jpeg;base64,...), or import what boxless predict --format label-studio writes",
        )
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise HTTPException(422, f"{name}: '{key}' is not base64 ({error})") from None
