"""Connections that are closed if no request arrives: uvicorn waits for the head of a request without end."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def with_header_timeout(seconds: float) -> type[H11Protocol]:
    """The protocol of connections that are closed where the head of a request takes longer to arrive.

    Args:
        seconds: at least these are waited, and at most twice as long.
    """

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._answered = self.cycle
            self._timer = self.loop.call_later(seconds, self._check)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _check(self) -> None:
            # A cycle is a request with its answer; the guard limits how long the body of a request may take.
            if self.conn.their_state is h11.IDLE and self.cycle is self._answered:
                self.transport.abort()
            else:
                self._answered = self.cycle
                self._timer = self.loop.call_later(seconds, self._check)

    return Connection
