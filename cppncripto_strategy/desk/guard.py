"""What stands before every request: names, rates, sizes, who it is, and headers on every answer.

In this order, and before any of our pages or FastAPI sees a byte: the Host header must name this
desk, an address may ask only so often, a body may be only so large and slow, and whoever asks shows
the token or a cookie. What reads nothing secret (the login page, style and scripts) needs neither.

Left out: headers that come too slowly and too many connections, which are the server's (`server`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from cppncripto_strategy.desk.credentials import Credentials
from cppncripto_strategy.desk.settings import DeskSettings

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN, STATIC, API, METRICS, SCORE = "/login", "/static/", "/api/", "/metrics", "/score"
# Scripts, styles and pictures are this desk's own files; nothing may frame a page or send it away.
# Plotly sets style attributes on what it draws, hence style-src-attr, and fills a style element
# that it adds empty: the hash is that of no text.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src-attr 'unsafe-inline';"
    " style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=';"
    " img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: browsers then hide the origin of our own forms, too.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
HSTS = "max-age=31536000"
MAX_ADDRESSES = 4_096


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer instead of the one asked for."""

    status: int
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


class Buckets:
    """So many events per second of each address, and a burst; forgets the least recent address."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether one more is allowed now."""
        now_s = self._clock()
        left, since_s = self._left.pop(address, (self._burst, now_s))
        left = min(self._burst, left + (now_s - since_s) * self._per_second)
        self._left[address] = (left - 1 if left >= 1 else left, now_s)
        while len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


class Guard:
    """An ASGI application that lets through to another what may pass; one per desk.

    Parameters
    ----------
    app : what is guarded.
    clock : seconds that only grow.

    Attributes
    ----------
    farewell : called when the server is about to end, so that what is kept open ends first.
    """

    def __init__(
        self,
        app: App,
        settings: DeskSettings,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = settings.limits
        self.farewell: Callable[[], None] = lambda: None
        self._app, self._settings, self._credentials = app, settings, credentials
        self._requests = Buckets(limits.per_second, limits.burst, clock)
        per_minute = limits.failures_per_minute
        self._failures = Buckets(per_minute / 60, per_minute, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, self._with_headers(scope, send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] not in ("GET", "HEAD"):
            body = await self._body(scope, receive)
            if isinstance(body, Refusal):
                refusal = body
            else:
                receive = _replayed(body, receive)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        log.info("%s: %d %s", address_of(scope), refusal.status, refusal.detail)
        await answer(send, refusal)

    def _refusal(self, scope: Scope) -> Refusal | None:
        hosts = header(scope, "host")
        if len(hosts) != 1 or hosts[0].lower() not in self._settings.hosts:
            return Refusal(
                400, "this desk does not go by that name; another one is given with --name"
            )
        if not self._requests.take(address_of(scope)):
            return Refusal(429, "too many requests: wait a second", (("retry-after", "1"),))
        if _head_size(scope) > self._settings.limits.head_bytes:
            return Refusal(431, "the request's line and headers are too long")
        sizes = header(scope, "content-length")
        if sizes and header(scope, "transfer-encoding"):
            return Refusal(400, "a body has one length: a proxy may believe the other one")
        if len(sizes) > 1 or any(not size.isdecimal() for size in sizes):
            return Refusal(400, "content-length is no number")
        if sizes and int(sizes[0][:18]) > self._most(scope):
            return self._too_large(scope)
        if scope["method"] == "OPTIONS" and self._allowed_origin(scope):
            return Refusal(204, "", _PREFLIGHT)
        return self._stranger(scope)

    def _stranger(self, scope: Scope) -> Refusal | None:
        """Why whoever asks may not have it; None for the token, a cookie, and public pages."""
        path, method = scope["path"], scope["method"]
        foreign = method not in ("GET", "HEAD") and not self._same_origin(scope)
        if path == LOGIN or path.startswith(STATIC):
            return Refusal(403, "a form of another page was sent here") if foreign else None
        tokens = header(scope, "authorization")
        if tokens:
            scheme, _, token = tokens[0].partition(" ")
            right = scheme.lower() == "bearer" and self._credentials.is_token(token.strip())
            return None if right and len(tokens) == 1 else self.failed(address_of(scope))
        if self._credentials.is_signed_in(cookie_of(scope, self._settings)):
            return Refusal(403, "a form of another page was sent here") if foreign else None
        if path.startswith(API) or path == METRICS or method not in ("GET", "HEAD"):
            return _UNKNOWN
        return Refusal(303, "sign in first", (("location", LOGIN),))

    def failed(self, address: str) -> Refusal:
        """A wrong token: refused, and after some of them asked to wait.

        Whoever has the right one is never locked out by others' wrong ones.
        """
        if self._failures.take(address):
            return _UNKNOWN
        return Refusal(429, "too many wrong tokens: wait a minute", (("retry-after", "60"),))

    def _same_origin(self, scope: Scope) -> bool:
        """Whether a browser says that our own page sent this; other clients need not say."""
        sites = header(scope, "sec-fetch-site")
        if sites and sites[0] not in ("same-origin", "none"):
            return False
        origins = header(scope, "origin")
        scheme = "https" if self._settings.secure else "http"
        ours = {f"{scheme}://{host}" for host in self._settings.hosts}
        return all(origin.lower() in ours for origin in origins)

    def _allowed_origin(self, scope: Scope) -> str | None:
        """The listed origin of another page that asks for the API, None for all others."""
        origins = header(scope, "origin")
        listed = len(origins) == 1 and origins[0] in self._settings.origins
        return origins[0] if listed and scope["path"].startswith(API) else None

    def _most(self, scope: Scope) -> int:
        """Bytes of a body that are allowed: candles take more than a form."""
        limits, path = self._settings.limits, scope["path"]
        scored = path.startswith(API) and path.endswith(SCORE)
        return limits.candles_bytes if scored else limits.body_bytes

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Refusal:
        """The whole body, in time and no larger than allowed."""
        try:
            async with asyncio.timeout(self._settings.limits.body_s):
                content = b""
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return Refusal(400, "the request ended before its body")
                    content += bytes(message.get("body", b""))
                    if len(content) > self._most(scope):
                        return self._too_large(scope)
                    if not message.get("more_body"):
                        return content
        except TimeoutError:
            return Refusal(408, "the body came too slowly", (("connection", "close"),))

    def _too_large(self, scope: Scope) -> Refusal:
        closed = (("connection", "close"),)
        return Refusal(413, f"the body is larger than {self._most(scope):,} bytes", closed)

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        more = dict(HEADERS)
        if self._settings.secure:
            more["strict-transport-security"] = HSTS
        origin = self._allowed_origin(scope)
        if self._settings.origins:
            more["vary"] = "origin"
        if origin is not None:
            more["access-control-allow-origin"] = origin

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                given += [
                    (name.encode(), value.encode())
                    for name, value in more.items()
                    if name.encode() not in names
                ]
                message = {**message, "headers": given}
            await send(message)

        return sending


_PREFLIGHT = (
    ("access-control-allow-methods", "GET"),
    ("access-control-allow-headers", "authorization, if-none-match"),
    ("access-control-max-age", "600"),
)
_UNKNOWN = Refusal(
    401,
    "show the token: `Authorization: Bearer ...`, or sign in at /login",
    (("www-authenticate", "Bearer"),),
)


async def answer(send: Send, refusal: Refusal) -> None:
    """Send a refusal as JSON."""
    empty = refusal.status in (204, 303)
    body = b"" if empty else json.dumps({"detail": refusal.detail}).encode()
    headers = [("content-length", str(len(body))), *refusal.headers]
    if not empty:
        headers.append(("content-type", "application/json"))
    coded = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": coded})
    await send({"type": "http.response.body", "body": body})


def cookie_name(settings: DeskSettings) -> str:
    """`__Host-` makes browsers insist on https, this host and no other path."""
    return "__Host-desk" if settings.secure else "desk"


def cookie_of(scope: Scope, settings: DeskSettings) -> str:
    """The value of our cookie; empty without one."""
    for line in header(scope, "cookie"):
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(line)
        except CookieError:
            continue
        found = cookies.get(cookie_name(settings))
        if found is not None:
            return found.value
    return ""


def address_of(scope: Scope) -> str:
    """Where a request comes from."""
    client: Iterable[Any] | None = scope.get("client")
    return str(next(iter(client), "")) if client else ""


def header(scope: Scope, name: str) -> list[str]:
    """Every value of a header, in order."""
    wanted = name.encode()
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]


def _head_size(scope: Scope) -> int:
    """Bytes of a request's line and headers, about."""
    sent = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    return sent + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more; then whatever follows it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving
