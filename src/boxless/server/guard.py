"""Middleware that limits the size, the rate and the origin of requests."""

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Limits of one server.

    Args:
        size: bytes of a request.
        pixels: of an image.
        tasks: of a Label Studio request.
        waiting: requests with a body in memory at the same time; further ones are refused with status 503.
        seconds: to receive a request, and to wait for the detector.
        rate: requests with a body per second and address, on average.
        burst: requests with a body per address that may arrive at once.
    """

    size: int = 20 * 2**20
    pixels: int = 40_000_000
    tasks: int = 100
    waiting: int = 8
    seconds: float = 30
    rate: float = 10
    burst: int = 40


_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
    "Cache-Control": "no-store",
}
"""Those of the OWASP Secure Headers Project, but for what needs TLS or sessions."""


class Guard:
    """Refuses requests of other sites and of unknown hosts, too many or too large ones, and reads bodies whole.

    Args:
        app: gets the other requests.
        limits: of size, rate and time.
        names: host names that requests may use, beside `localhost` and any IP address.
    """

    def __init__(self, app: ASGIApp, limits: Limits, names: Collection[str]) -> None:
        self._app, self._limits = app, limits
        self._names = frozenset({"localhost", *map(str.lower, names)})
        self._rate = _Rate(limits.rate, limits.burst)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it, or pass it to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._check_origin(Headers(scope=scope), scope["method"])
            if scope["method"] == "POST":
                await self._with_body(scope, receive, send_on)
            else:
                await self._app(scope, receive, send_on)
        except HTTPException as error:
            # The rest of the body is not read.
            headers = {**(error.headers or {}), "Connection": "close"}
            await JSONResponse({"error": error.detail}, error.status_code, headers)(scope, receive, send_on)

    def _check_origin(self, headers: Headers, method: str) -> None:
        """Refuse pages of other sites, by the Host header (DNS rebinding) and by the Origin header."""
        host = headers.get("host", "")
        if not _is_address_or(self._names, host):
            raise HTTPException(
                400, "unknown Host: open the server by its address, or by a name given as --host or --name"
            )
        origin = headers.get("origin")
        if method != "GET" and origin is not None and _site(origin) != host.lower():
            raise HTTPException(403, "requests from pages of other sites are refused")

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
        """The whole body; None where the client disconnected."""
        limit, body = self._limits.size, bytearray()
        too_large = HTTPException(413, f"more than {limit:,} bytes; scale the image down")
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
    """Whether a Host header is one of `names` or an IP address, which DNS rebinding cannot use."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in names


class _Rate:
    """A token bucket for each of the thousand most recent addresses."""

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


def _site(origin: str) -> str | None:
    """The host and port of an Origin header; None if it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
