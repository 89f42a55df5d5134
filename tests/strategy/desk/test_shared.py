"""Answers made once for many: never an old candle, never another's answer, never without end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

from cppncripto_strategy.desk.library import Library
from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.desk.sessions import LOOK_S
from cppncripto_strategy.desk.shared import Shared

PATIENCE_S = 60.0


class Made:
    """An application that answers with a session's rounds, and counts; waits if told to."""

    def __init__(self, library: Library, id: str) -> None:
        self.library, self.id = library, id
        self.count, self.status, self.fails = 0, 200, False
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1
        body = str(self.library.watch(self.id).summary().rounds).encode()
        self.begun.set()
        await self.go_on.wait()
        if self.fails:
            raise RuntimeError("before anything was sent")
        start = {"type": "http.response.start", "status": self.status, "headers": [(b"x", b"y")]}
        await send(start)
        await send({"type": "http.response.body", "body": body[:1], "more_body": True})
        await send({"type": "http.response.body", "body": body[1:]})


class Asked:
    """What came back."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 0, {}, b""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]


async def ask(shared: Shared, path: str, query: str = "", **headers: str) -> Asked:
    """A request through the shared answers."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode()}
    asked = Asked()
    await shared({**scope, "headers": raw}, None, asked.send)  # type: ignore[arg-type]
    return asked


@pytest.fixture
def world(copy_of, desk):
    """Function of a coroutine: runs it with a session, its watch, and a clock that stands."""

    def run(test: Any, **options: Any) -> None:
        async def inside() -> None:
            now = [0.0]
            library = Library(copy_of, clock=lambda: now[0])
            [entry] = Listing(copy_of).of("session")
            made = Made(library, entry.id)
            number = iter(range(desk.rounds, desk.rounds + 100))
            await test(
                SimpleNamespace(
                    now=now, made=made, path=f"/api/v1/sessions/{entry.id}", rounds=desk.rounds,
                    shared=Shared(made, library, **options), watch=library.watch(entry.id),
                    candle=lambda: desk.append(entry.path, desk.round_records(next(number))),
                )
            )  # fmt: skip

        asyncio.run(asyncio.wait_for(inside(), PATIENCE_S))

    return run


def test_all_who_ask_at_once_get_one_answer(world):
    """Fifty pages that are told of a candle, and fifty times the work of one."""

    async def test(w: Any) -> None:
        found = await asyncio.gather(*(ask(w.shared, w.path) for _ in range(50)))
        assert w.made.count == 1
        assert {one.body for one in found} == {str(w.rounds).encode()}
        assert {(one.status, one.headers[b"x"]) for one in found} == {(200, b"y")}
        other = await ask(w.shared, w.path, "symbol=AUSDT")
        assert (w.made.count, other.body) == (2, found[0].body)

    world(test)


def test_a_candle_is_seen_at_the_next_look_and_at_once_by_who_was_told(world):
    """An old candle that is shown as the newest."""

    async def test(w: Any) -> None:
        await ask(w.shared, w.path)
        w.candle()
        assert int((await ask(w.shared, w.path)).body) == w.rounds  # as of the last look
        assert w.made.count == 1
        w.now[0] += LOOK_S
        assert int((await ask(w.shared, w.path)).body) == w.rounds + 1
        w.candle()
        w.watch.stir()
        assert int((await ask(w.shared, w.path)).body) == w.rounds + 2
        assert w.made.count == 3

    world(test)


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/sessions", "/sessions/{}/view"])
def test_every_answer_of_a_session_follows_it(world, path):
    """A list of sessions, or metrics, that stand still while a page of one goes on."""

    async def test(w: Any) -> None:
        asked = path.format(w.made.id)
        for more in range(3):
            assert int((await ask(w.shared, asked)).body) == w.rounds + more
            w.candle()
            w.watch.stir()

    world(test)


def test_who_was_told_of_a_candle_gets_no_answer_that_was_begun_before(world):
    """A slow answer from before a candle, given to a page that asks because of the candle."""

    async def test(w: Any) -> None:
        w.made.go_on.clear()
        early = asyncio.create_task(ask(w.shared, w.path))
        await w.made.begun.wait()
        w.candle()
        w.watch.stir()
        late = asyncio.create_task(ask(w.shared, w.path))
        w.made.begun.clear()
        await w.made.begun.wait()
        w.made.go_on.set()
        assert int((await early).body) == w.rounds
        assert int((await late).body) == w.rounds + 1
        # Nor is the early one, which may be ready last, what others are given afterwards.
        assert int((await ask(w.shared, w.path)).body) == w.rounds + 1

    world(test)


def test_the_same_again_is_304_and_nothing_is_made(world):
    """A bot that asks four times a second, and gets the same list each time."""

    async def test(w: Any) -> None:
        first = await ask(w.shared, w.path)
        tag = first.headers[b"etag"].decode()
        again = await ask(w.shared, w.path, if_none_match=f'"other", {tag}')
        assert (again.status, again.body, w.made.count) == (304, b"", 1)
        w.candle()
        w.watch.stir()
        assert (await ask(w.shared, w.path, if_none_match=tag)).status == 200

    world(test)


def test_who_hangs_up_takes_nobodys_answer_away(world):
    """A closed page that ends the answer that forty-nine others wait for."""

    async def test(w: Any) -> None:
        w.made.go_on.clear()
        first, second = (asyncio.create_task(ask(w.shared, w.path)) for _ in range(2))
        await w.made.begun.wait()
        first.cancel()
        w.made.go_on.set()
        assert (await second).status == 200
        assert w.made.count == 1
        with pytest.raises(asyncio.CancelledError):
            await first

    world(test)


def test_refusals_and_failures_are_not_kept(world):
    """An id that is not known yet, or a failure, that goes on being the answer."""

    async def test(w: Any) -> None:
        w.made.status = 404
        assert (await ask(w.shared, w.path)).status == 404
        w.made.fails = True
        with pytest.raises(RuntimeError):
            await ask(w.shared, w.path)
        w.made.fails, w.made.status = False, 200
        assert (await ask(w.shared, w.path)).status == 200
        assert w.made.count == 3

    world(test)


def test_kept_answers_are_bounded_in_bytes(world):
    """A question with a new query each time, until the memory is full."""

    async def test(w: Any) -> None:
        for query in ("a", "b", "a", "c"):  # two of them fit
            await ask(w.shared, w.path, query)
        assert w.made.count == 3
        await ask(w.shared, w.path, "a")
        assert w.made.count == 3
        await ask(w.shared, w.path, "b")  # asked for least recently
        assert w.made.count == 4

    world(test, most_bytes=2 * len(b"40"))


def test_what_is_not_shared_is_passed_on(world):
    """A sign-in, a stream or a report that is answered from memory."""

    async def test(w: Any) -> None:
        for path in (f"/sessions/{w.made.id}/live", "/login", "/runs", "/static/desk.js"):
            before = w.made.count
            for _ in range(2):
                assert b"etag" not in (await ask(w.shared, path)).headers
            assert w.made.count == before + 2

    world(test)
