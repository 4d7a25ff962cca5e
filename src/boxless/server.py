"""A page to look at a detector's work, a JSON API for programs, and what Label Studio asks of an ML backend.

Everything of a request stays in memory: uploads are never spooled to disk, no path or address in a request is followed,
and sizes, rates and waiting times are bounded.
"""

import asyncio
import base64
import importlib.metadata
import ipaddress
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from boxless.errors import BoxlessError
from boxless.exports.common import rows
from boxless.exports.label_studio import Control, labeling_config, own_control, prediction, read_labeling_config
from boxless.inference import Detector, confident
from boxless.pictures import decode_picture
from boxless.progress import console
from boxless.structures import Detections, FloatArray, Heatmaps
from boxless.visualize import draw_heatmap
from boxless.visualize.boxes import class_colour

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.datastructures import Headers, MutableHeaders, UploadFile
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.formparsers import MultiPartException, MultiPartParser
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError:
    raise BoxlessError("the server is not installed: pip install 'boxless[serve]'") from None

T = TypeVar("T")

PICTURE, HEATMAP = 1600, 320
"""Longest sides, in pixels, of what the page gets to show."""


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Args:
        size: bytes of a request.
        pixels: of a picture.
        tasks: of a Label Studio request.
        waiting: requests with a body that are in memory at once; more are told to come back.
        seconds: to send a request, and to wait for a turn.
        rate: requests with a body a second from one address, on average.
        burst: the same, at once.
    """

    size: int = 20 * 2**20
    pixels: int = 40_000_000
    tasks: int = 100
    waiting: int = 8
    seconds: float = 30
    rate: float = 10
    burst: int = 40


class Detection(BaseModel):
    """A box: its class, its score, and x1, y1, x2, y2 in pixels, right and bottom exclusive."""

    name: str
    score: float
    box: tuple[float, float, float, float]


class Prediction(BaseModel):
    """What was found in a picture, best first; `image_scores` tell how sure it is that a class is there at all."""

    model_version: str
    width: int
    height: int
    image_scores: dict[str, float]
    detections: list[Detection]


class MarkedDetection(Detection):
    """A box, and whether it is one that `boxless predict` would show."""

    confident: bool


class ClassView(BaseModel):
    """A class's colour (#rrggbb) and its heatmap, a JPEG data URI that spans the picture."""

    colour: str
    heatmap: str


class Look(Prediction):
    """All boxes, the picture as it was read (a JPEG data URI), and every class's heatmap."""

    detections: list[MarkedDetection]  # type: ignore[assignment]
    picture: str
    classes: dict[str, ClassView]


class Model(BaseModel):
    """Which detector this is, what it takes, and the labeling config that fits it."""

    model_version: str
    method: str
    classes: list[str]
    max_bytes: int
    max_pixels: int
    labeling_config: str


class Problem(BaseModel):
    """What was wrong, and the mend."""

    error: str


class Tasks(BaseModel):
    """Label Studio's request: pictures are data URIs in the tasks' data."""

    tasks: list[dict[str, Any]]
    label_config: str | None = None


class Project(BaseModel):
    """Label Studio's greeting: its project's labeling config."""

    schema_: str | None = Field(None, alias="schema")


# What people send.


class _MemoryParser(MultiPartParser):
    """Keeps files in memory, whose size the guard has bounded, where Starlette's would begin a temporary file."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Forget the files, also those that broke off."""
        for file in self._files_to_close_on_error:
            file.close()


async def _uploaded(request: Request) -> bytes:
    """The bytes of the form's file."""
    if _kind(request) != "multipart/form-data":
        raise HTTPException(415, "send the picture as multipart/form-data, in the field 'file'")
    parser = _MemoryParser(request.headers, request.stream(), max_files=1, max_fields=8)
    try:
        file = (await parser.parse()).get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "no picture: send it as a file in the form's field 'file'")
        return await file.read()
    except MultiPartException as error:
        raise HTTPException(400, f"not a form that can be read: {error.message}") from None
    finally:
        parser.close()


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


_ANSWERS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (400, 403, 408, 413, 415, 422, 429, 503)
}
_FORM: dict[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "format": "binary"}},
        }
    }
}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


# What the detector does.


class _Service:
    """The detector, looking at one picture at a time."""

    def __init__(self, detector: Detector, limits: Limits) -> None:
        self.detector, self.limits = detector, limits
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[], T]) -> T:
        """Do some work outside the event loop, when it is its turn."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self._turn.acquire()
        except TimeoutError:
            raise HTTPException(503, "too much to do at the moment; try again later", {"Retry-After": "5"}) from None
        try:
            return await asyncio.to_thread(work)
        finally:
            self._turn.release()

    def predict(self, content: bytes, min_score: float | None) -> Prediction:
        """The boxes of a picture file: those that score enough, or the confident ones."""
        found, _ = self.detector.look(decode_picture(content, "the picture", self.limits.pixels))
        found = confident(found) if min_score is None else found.above(min_score)
        return Prediction(**self._head(found), detections=[_detection(found, *row) for row in rows(found)])

    def look(self, content: bytes) -> Look:
        """All there is to see in a picture file."""
        picture = decode_picture(content, "the picture", self.limits.pixels)
        found, heat = self.detector.look(picture)
        shown = set(rows(confident(found)))
        detections = [
            MarkedDetection(**_detection(found, *row).model_dump(), confident=row in shown) for row in rows(found)
        ]
        classes = {
            name: ClassView(colour="#{:02x}{:02x}{:02x}".format(*class_colour(label)), heatmap=_heatmap(heat, label))
            for label, name in enumerate(found.classes)
        }
        return Look(**self._head(found), detections=detections, picture=_data_uri(picture, PICTURE), classes=classes)

    def task(self, content: bytes, name: str, control: Control) -> dict[str, Any]:
        """A Label Studio prediction for a picture file."""
        found, _ = self.detector.look(decode_picture(content, name, self.limits.pixels))
        return prediction(confident(found), control, self.detector.name)

    def model(self) -> Model:
        """What is served."""
        return Model(
            model_version=self.detector.name,
            method=self.detector.config.method,
            classes=list(self.detector.classes),
            max_bytes=self.limits.size,
            max_pixels=self.limits.pixels,
            labeling_config=labeling_config(own_control(self.detector.classes)),
        )

    def _head(self, found: Detections) -> dict[str, Any]:
        scores = {name: round(float(score), 6) for name, score in zip(found.classes, found.image_scores, strict=True)}
        width, height = found.size
        return {"model_version": self.detector.name, "width": width, "height": height, "image_scores": scores}


def _detection(found: Detections, label: int, score: float, box: tuple[float, float, float, float]) -> Detection:
    return Detection(name=found.classes[label], score=score, box=box)


def _heatmap(heat: Heatmaps, label: int) -> str:
    shrink = min(1, HEATMAP / max(heat.size))
    width, height = (max(1, round(side * shrink)) for side in heat.size)
    heatmap: FloatArray = heat.maps[label]
    return _data_uri(draw_heatmap(np.zeros((height, width, 3), np.uint8), heatmap, alpha=1), HEATMAP)


def _data_uri(picture: NDArray[np.uint8], longest: int) -> str:
    image, file = Image.fromarray(picture), BytesIO()
    image.thumbnail((longest, longest))
    image.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


# Label Studio.


def _task_picture(task: dict[str, Any], key: str, name: str) -> bytes:
    """The picture in a task's data."""
    data = task.get("data")
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise HTTPException(422, f"{name}: its data has no '{key}', which the labeling config takes the picture from")
    head, comma, content = value.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise HTTPException(
            422,
            f"{name}: '{key}' is a path or an address, and this server follows none; import tasks with the pictures as "
            "data URIs (data:image/jpeg;base64,...), or import what boxless predict --format label-studio writes",
        )
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise HTTPException(422, f"{name}: '{key}' is no base64 ({error})") from None


async def _predict_tasks(service: _Service, body: bytes) -> dict[str, Any]:
    asked = Tasks.model_validate_json(body)
    if len(asked.tasks) > service.limits.tasks:
        raise HTTPException(413, f"{len(asked.tasks)} tasks; at most {service.limits.tasks} are taken at once")
    classes = service.detector.classes
    control = read_labeling_config(asked.label_config, classes) if asked.label_config else own_control(classes)
    names = [f"task {number}" for number in range(1, len(asked.tasks) + 1)]
    pictures = [_task_picture(task, control.key, name) for task, name in zip(asked.tasks, names, strict=True)]
    results = [
        await service.do(partial(service.task, content, name, control))
        for content, name in zip(pictures, names, strict=True)
    ]
    return {"results": results, "model_version": service.detector.name}


# The application.


def create_app(detector: Detector, limits: Limits | None = None, host: str = "127.0.0.1") -> ASGIApp:
    """The server's ASGI application.

    Args:
        detector: what looks at the pictures.
        limits: what it takes on.
        host: a name under which it may be asked, beside `localhost` and any address.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="Boxless",
        version=importlib.metadata.version("boxless"),
        description=(__doc__ or "").partition("\n")[0],
        # FastAPI's pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    _add_page(app)
    _add_api(app, _Service(detector, limits))
    _add_errors(app)
    return _Guard(app, limits, frozenset({"localhost", host.lower()}))


def _add_page(app: FastAPI) -> None:
    for name, kind in {"index.html": "text/html", "app.js": "text/javascript", "style.css": "text/css"}.items():
        # Read here and once: no request names a file.
        content = (files("boxless") / "static" / name).read_bytes()
        app.add_route("/" if name == "index.html" else f"/{name}", partial(_send, content, kind))


async def _send(content: bytes, kind: str, request: Request) -> Response:
    return Response(content, media_type=kind)


def _add_api(app: FastAPI, service: _Service) -> None:
    @app.get("/model")
    async def model() -> Model:
        """Which detector this is."""
        return service.model()

    @app.post("/look", responses=_ANSWERS, openapi_extra=_body(_FORM))
    async def look(request: Request) -> Look:
        """All boxes and the heatmap of every class of an uploaded picture."""
        content = await _uploaded(request)
        return await service.do(lambda: service.look(content))

    @app.post(
        "/predict",
        responses=_ANSWERS,
        openapi_extra=_body(_FORM | {"application/json": {"schema": Tasks.model_json_schema()}}),
    )
    async def predict(request: Request, min_score: float | None = None) -> Prediction | dict[str, Any]:
        """The boxes of an uploaded picture: the confident ones, or all from `min_score` on.

        Label Studio asks here too, in JSON; it gets its own predictions.
        """
        if _kind(request) == "application/json":
            return await _predict_tasks(service, await request.body())
        content = await _uploaded(request)
        return await service.do(lambda: service.predict(content, min_score))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Label Studio asks whether there is anybody."""
        return {"status": "UP", "model_class": "Boxless", "model_version": service.detector.name}

    @app.post("/setup", responses=_ANSWERS)
    async def setup(project: Project) -> dict[str, str]:
        """Label Studio tells its labeling config and asks for the model's version."""
        if project.schema_:
            read_labeling_config(project.schema_, service.detector.classes)
        return {"model_version": service.detector.name}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(BoxlessError)
    async def mendable(request: Request, error: BoxlessError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: ValidationError | RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the server failed; its terminal tells why"}, 500)


# What stands before it.

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Guard:
    """Lets through requests that come from the right place, not too many, and that are read whole and small enough."""

    def __init__(self, app: ASGIApp, limits: Limits, names: frozenset[str]) -> None:
        self._app, self._limits, self._names = app, limits, names
        self._rate = _Rate(limits.rate, limits.burst)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._check_place(Headers(scope=scope), scope["method"])
            if scope["method"] == "POST":
                await self._with_body(scope, receive, send_on)
            else:
                await self._app(scope, receive, send_on)
        except StarletteHTTPException as error:
            # The rest of the body is not waited for.
            headers = {**(error.headers or {}), "Connection": "close"}
            await JSONResponse({"error": error.detail}, error.status_code, headers)(scope, receive, send_on)

    def _check_place(self, headers: Headers, method: str) -> None:
        """Keep out other sites' pages: by their names for this machine (DNS rebinding), and by their origin."""
        host = headers.get("host", "")
        if not _is_address_or(self._names, host):
            raise HTTPException(400, "unknown Host: open the server by its address, or by the name given as --host")
        origin = headers.get("origin")
        if method != "GET" and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise HTTPException(403, "another site's page may not ask this server")

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client") or ("", 0)
        if not self._rate.take(client[0]):
            raise HTTPException(429, "too many requests; slow down", {"Retry-After": "1"})
        if self._inside >= self._limits.waiting:
            raise HTTPException(503, "too many requests at once; try again", {"Retry-After": "1"})
        self._inside += 1
        try:
            body = await self._read(Headers(scope=scope), receive)
            if body is not None:
                await self._app(scope, _replay(body, receive), send)
        finally:
            self._inside -= 1

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None where the client went away."""
        limit, body = self._limits.size, bytearray()
        too_large = HTTPException(413, f"more than {limit:,} bytes; scale the picture down")
        if int(headers.get("content-length", "0")) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise HTTPException(408, "the request took too long to arrive") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def _is_address_or(names: frozenset[str], host: str) -> bool:
    """Whether a Host header is one of `names` or an IP address, which no name server can point elsewhere."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in names


class _Rate:
    """A token bucket for each of the latest thousand addresses."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether there was a token left."""
        now = time.monotonic()
        left, since = self._buckets.pop(address, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._rate)
        self._buckets[address] = (max(left - 1, 0) if left >= 1 else left, now)
        if len(self._buckets) > 1000:
            self._buckets.popitem(last=False)
        return left >= 1


def serve(run: Path, host: str, port: int) -> None:
    """Serve a run's detector until it is interrupted.

    Args:
        run: the run folder.
        host: address or name to listen on.
        port: to listen on; 0 takes a free one.

    Raises:
        BoxlessError: it is no run folder, or the address cannot be had.
    """
    listener = _listen(host, port)
    server = build_server(create_app(Detector.load(run), host=host))
    name = f"[{host}]" if ":" in host else host
    console.print(f"Open http://{name}:{listener.getsockname()[1]} (Ctrl-C ends it)", highlight=False)
    if host not in ("127.0.0.1", "localhost", "::1"):
        console.print("Whoever reaches this machine can use it; there is no password.", style="yellow")
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def build_server(app: ASGIApp) -> uvicorn.Server:
    """The web server of an application: plain HTTP, and no more connections than it can bear."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            http="h11",
            ws="none",
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=5,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise BoxlessError(f"{host}:{port}: cannot be listened on ({error}); choose another --host or --port") from None
