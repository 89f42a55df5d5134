"""Serving a desk on a port: uvicorn with bounds on connections, headers and idle time."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from uvicorn.protocols.http.h11_impl import H11Protocol

from cppncripto_strategy.desk import files
from cppncripto_strategy.desk.credentials import Credentials, make_token
from cppncripto_strategy.desk.guard import Guard
from cppncripto_strategy.desk.settings import DeskSettings
from cppncripto_strategy.errors import DeskError

log = logging.getLogger(__name__)

IDLE_S, FAREWELL_S = 15, 2
# Answers are made one at a time as it is; a few more threads for those that wait or compute long.
THREADS = 4


def protocol_of(head_s: float) -> type[H11Protocol]:
    """uvicorn's protocol, which also closes what does not send its headers in time."""

    class Impatient(H11Protocol):
        """Ends connections on which a request was begun, or never begun, and not finished."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer: asyncio.TimerHandle | None = None
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._timer is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._stop_waiting()
            if self.conn.trailing_data[0]:  # the next request has begun already
                self._wait()

        def _wait(self) -> None:
            self._timer = self.loop.call_later(head_s, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None

    return Impatient


def uvicorn_config(settings: DeskSettings, app: Any) -> uvicorn.Config:
    """How uvicorn serves a desk: no access log, no name of its own, bounds everywhere."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol_of(settings.limits.head_s),
        loop="asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=settings.behind_proxy,
        forwarded_allow_ips="127.0.0.1,::1" if settings.behind_proxy else None,
        limit_concurrency=settings.limits.connections,
        h11_max_incomplete_event_size=settings.limits.head_bytes,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=FAREWELL_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


class DeskServer(uvicorn.Server):
    """uvicorn, which ends the pages that are kept up to date before it waits for them to end."""

    def __init__(self, settings: DeskSettings, app: Guard) -> None:
        super().__init__(uvicorn_config(settings, app))
        self._guard = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, with few threads: each keeps memory of its own."""
        current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what stands open, then everything."""
        self._guard.farewell()
        await super().shutdown(sockets)


def bind(settings: DeskSettings) -> socket.socket:
    """The desk's socket, bound.

    Raises
    ------
    DeskError
        When the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two desks have one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as cause:
        listener.close()
        raise DeskError(
            f"{settings.host}:{settings.port} cannot be had ({cause.strerror or cause}): another"
            " desk may run there, or give another --port"
        ) from cause
    return listener


def serve(
    settings: DeskSettings,
    build: Callable[[DeskSettings, Credentials], Guard],
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a signal; the token is made where there is none.

    Parameters
    ----------
    build : makes the application.
    started : called once the address is bound.

    Raises
    ------
    DeskError
        When the address cannot be had, or the token is missing or open to others.
    """
    made = make_token(settings.token_file)
    log.info("the token %s", "was made" if made else "was there")
    credentials = Credentials(settings.token_file)
    listener = bind(settings)
    with listener:
        server = DeskServer(settings, build(settings, credentials))
        threading.Thread(target=files.warm, name="warm", daemon=True).start()
        started()
        server.run(sockets=[listener])
