"""One answer for everybody who asks the same until something was written: made once, kept as bytes.

What a session's journals and its process say is in its `stamp`; an answer is given again only while
the stamp is the one from before it was made. So it may be newer than its stamp, never older. The
API's answers get their ETag here, too, and who has one already gets 304.

Left out: pages that nobody asks for ten times a second (runs, days, stores) are made each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from cppncripto_strategy.desk.guard import API, App, Message, Receive, Scope, Send, header
from cppncripto_strategy.desk.library import Library, LibraryStamp

# Bytes of answers that are kept; those asked for least recently go first.
MOST_BYTES = 16 << 20
_OF_ALL = re.compile(r"/|/metrics|/api/v1/sessions")
_OF_ONE = re.compile(
    r"(?:/api/v1)?/sessions/([0-9a-f]{16})(?:/(?:view|decisions|fills|equity|candles|events))?"
)
Key = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it is sent, and the stamp from before it was made; None where it has none."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    tag: bytes
    stamp: LibraryStamp | None


class Shared:
    """An ASGI application before another one, whose answers it shares. One event loop's.

    Parameters
    ----------
    app : makes the answers.
    library : knows whether anything was written since.
    most_bytes : of answers that are kept.
    """

    def __init__(self, app: App, library: Library, most_bytes: int = MOST_BYTES) -> None:
        self._app, self._library, self._most_bytes = app, library, most_bytes
        self._kept: OrderedDict[Key, Answer] = OrderedDict()
        self._bytes = 0
        self._making: dict[tuple[Key, int], asyncio.Task[Answer]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with what is known, or have it answered."""
        path = scope.get("path", "")
        whole = scope["type"] == "http" and scope["method"] == "GET"
        if whole and (_OF_ALL.fullmatch(path) or _OF_ONE.fullmatch(path)):
            await _give(await self._answer(scope), scope, send)
        elif whole and path.startswith(API):
            await _give(await self._made(scope, None), scope, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope) -> Answer:
        """What is kept while its stamp holds; else made anew, once for all who wait for it."""
        key = (scope["path"], scope["query_string"])
        kept, id = self._kept.get(key), _id_of(scope["path"])
        if kept is not None and kept.stamp == self._library.stamp(id):
            self._kept.move_to_end(key)
            return kept
        # Who was told of a candle does not wait for an answer that was begun before it.
        begun = (key, self._library.stirs(id))
        task = self._making.get(begun)
        if task is None:
            task = asyncio.create_task(self._renewed(key, scope))
            self._making[begun] = task
            task.add_done_callback(lambda _done: self._making.pop(begun))
        return await asyncio.shield(task)  # who hangs up does not end it for the others

    async def _renewed(self, key: Key, scope: Scope) -> Answer:
        stamp = await run_in_threadpool(self._library.look, _id_of(scope["path"]))
        kept = self._kept.get(key)
        if kept is not None and kept.stamp == stamp:
            return kept
        answer = await self._made(scope, stamp)
        self._keep(key, answer)
        return answer

    async def _made(self, scope: Scope, stamp: LibraryStamp | None) -> Answer:
        """The application's answer, whole."""
        sent: list[Message] = []

        async def collect(message: Message) -> None:
            sent.append(message)

        try:
            await self._app(scope, _nothing_more, collect)
        except Exception:
            # It was logged, and a page that says so was sent, before it came here.
            if not sent or sent[-1]["type"] != "http.response.body" or sent[-1].get("more_body"):
                raise
        start, *pieces = sent
        body = b"".join(bytes(piece.get("body", b"")) for piece in pieces)
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode()
        return Answer(start["status"], tuple(start["headers"]), body, tag, stamp)

    def _keep(self, key: Key, answer: Answer) -> None:
        before = self._kept.pop(key, None)
        self._bytes -= 0 if before is None else len(before.body)
        if answer.status == 200 and answer.stamp is not None:
            self._kept[key] = answer
            self._bytes += len(answer.body)
        while self._bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.body)


def _id_of(path: str) -> str | None:
    """The session that a path is about; None for all of them."""
    found = _OF_ONE.fullmatch(path)
    return found[1] if found else None


async def _nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _give(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer, or 304 to who has it already."""
    status, headers, body = answer.status, answer.headers, answer.body
    if status == 200 and scope["path"].startswith(API):
        tagged = ((b"etag", answer.tag), (b"cache-control", b"private, no-cache"))
        known = ",".join(header(scope, "if-none-match")).split(",")
        if answer.tag.decode() in [tag.strip() for tag in known]:
            status, headers, body = 304, (), b""
        headers = (*headers, *tagged)
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
