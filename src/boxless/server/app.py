"""The server's ASGI application and the web server that runs it."""

import importlib.metadata
import logging
import socket
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp

from boxless.errors import BoxlessError, ImageError, first_problem
from boxless.export.label_studio import own_control, read_labeling_config
from boxless.loading import load_predictor
from boxless.predictor import Predictor
from boxless.server.connections import with_header_timeout
from boxless.server.guard import Guard, Limits
from boxless.server.messages import Inspection, Model, Prediction, Problem, Project, Tasks
from boxless.server.service import Service
from boxless.server.uploads import kind, task_image, uploaded

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Connections at the same time, idle ones too; further ones are answered with status 503."""
BACKLOG = 64
"""Connections that wait to be taken. asyncio takes up to so many in one go before it goes on with any request, and
uvicorn's 2,048 are many in a flood of connections."""


def serve(run: Path, host: str, port: int, name: str | None = None) -> None:
    """Serve a run's detector until it is interrupted.

    Args:
        run: the run folder, or a file of `boxless export`.
        host: address or name to listen on.
        port: to listen on; 0 takes a free one.
        name: a further host name by which others reach the server.

    Raises:
        BoxlessError: it is neither, or the address is not available.
    """
    listener = listen(host, port)
    names = {host} if name is None else {host, name}
    run_until_interrupted(create_app(load_predictor(run), names=names), listener, host)


def run_until_interrupted(app: ASGIApp, listener: socket.socket, host: str) -> None:
    """Serve an application, and say where, until Ctrl-C.

    Args:
        app: the application.
        listener: what `listen` gave.
        host: the address or name it was given.
    """
    name = f"[{host}]" if ":" in host else host
    logger.info("Open http://%s:%d (Ctrl-C stops it)", name, listener.getsockname()[1])
    if host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("Anyone who can reach this machine can use the server; there is no password.")
    with suppress(KeyboardInterrupt):
        build_server(app).run(sockets=[listener])


def build_server(app: ASGIApp, limits: Limits | None = None) -> uvicorn.Server:
    """The web server of an application: plain HTTP, with a limited number of connections, none of which waits long."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            http=with_header_timeout((limits or Limits()).seconds),
            ws="none",
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=BACKLOG,
            timeout_graceful_shutdown=5,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        BoxlessError: it is not available.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise BoxlessError(f"{host}:{port}: cannot listen there ({error}); choose another --host or --port") from None


def create_app(detector: Predictor, limits: Limits | None = None, names: Collection[str] = ()) -> ASGIApp:
    """The server's ASGI application.

    Args:
        detector: computes the predictions.
        limits: of size, rate and time.
        names: host names that requests may use, beside `localhost` and any IP address.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="Boxless",
        version=importlib.metadata.version("boxless"),
        description="A page that shows predictions, a JSON API, and a Label Studio ML backend.",
        # FastAPI's pages load their scripts from another site.
        docs_url=None,
        redoc_url=None,
    )
    add_page(app, "index.html", "app.js", "style.css")
    _add_api(app, Service(detector, limits))
    add_errors(app)
    return Guard(app, limits, names)


_MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def add_page(app: FastAPI, *names: str) -> None:
    """Serve files of `static`, the page at `/`."""
    for name in names:
        media = _MEDIA[Path(name).suffix]
        # Read once, here: no request chooses a file.
        content = (files("boxless") / "static" / name).read_bytes()
        app.add_route("/" if media == "text/html" else f"/{name}", partial(_send, content, media))


async def _send(content: bytes, media: str, request: Request) -> Response:
    return Response(content, media_type=media)


_RESPONSES: dict[int | str, dict[str, Any]] = {
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


def _add_api(app: FastAPI, service: Service) -> None:
    @app.get("/model")
    async def model() -> Model:
        """The detector's name, classes and limits."""
        return service.model()

    @app.post("/inspect", responses=_RESPONSES, openapi_extra=_body(_FORM))
    async def inspect(request: Request) -> Inspection:
        """All boxes and the heatmap of every class of an uploaded image."""
        content = await uploaded(request)
        return await service.run(lambda: service.inspect(content))

    @app.post(
        "/predict",
        responses=_RESPONSES,
        openapi_extra=_body(_FORM | {"application/json": {"schema": Tasks.model_json_schema()}}),
    )
    async def predict(request: Request, threshold: float | None = None) -> Prediction | dict[str, Any]:
        """The boxes of an uploaded image: the confident ones, or all whose score is `threshold` or higher.

        JSON requests are those of Label Studio, answered with predictions in its format.
        """
        if kind(request) == "application/json":
            return await _predict_tasks(service, await request.body())
        content = await uploaded(request)
        return await service.run(lambda: service.predict(content, threshold))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Label Studio's check that the server is running."""
        return {"status": "UP", "model_class": "Boxless", "model_version": service.detector.name}

    @app.post("/setup", responses=_RESPONSES)
    async def setup(project: Project) -> dict[str, str]:
        """Label Studio sends its labeling config and receives the model's version."""
        if project.schema_:
            read_labeling_config(project.schema_, service.detector.classes)
        return {"model_version": service.detector.name}


async def _predict_tasks(service: Service, body: bytes) -> dict[str, Any]:
    message = Tasks.model_validate_json(body)
    if len(message.tasks) > service.limits.tasks:
        raise HTTPException(413, f"{len(message.tasks)} tasks; the maximum per request is {service.limits.tasks}")
    classes = service.detector.classes
    control = read_labeling_config(message.label_config, classes) if message.label_config else own_control(classes)
    names = [f"task {number}" for number in range(1, len(message.tasks) + 1)]
    images = [task_image(task, control.key, name) for task, name in zip(message.tasks, names, strict=True)]
    results, unread = [], list[ImageError]()
    for content, name in zip(images, names, strict=True):
        try:
            results.append(await service.run(partial(service.task, content, name, control)))
        except ImageError as error:
            # The other tasks keep their boxes.
            unread.append(error)
            results.append({"result": [], "score": 0, "model_version": service.detector.name})
    if unread and len(unread) == len(images):
        raise unread[0]
    for reason in unread:
        logger.warning("%s", reason)
    return {"results": results, "model_version": service.detector.name}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def add_errors(app: FastAPI) -> None:
    """Answer errors with `{"error": "..."}`: one line, without a traceback."""

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(BoxlessError)
    async def user_error(request: Request, error: BoxlessError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: ValidationError | RequestValidationError) -> Response:
        return JSONResponse({"error": first_problem(error.errors())}, 422)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "internal error; see the server's terminal"}, 500)
