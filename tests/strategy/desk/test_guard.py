"""What never reaches the desk: the guard alone, before an application that counts its calls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.desk.credentials import Credentials
from cppncripto_strategy.desk.guard import HEADERS, MAX_ADDRESSES, Buckets, Guard
from cppncripto_strategy.desk.settings import DeskSettings, Limits

HOST = (b"host", b"127.0.0.1:8470")
WIDE = Limits(per_second=1e6, burst=10**6)


class Inner:
    """An application behind the guard: counts requests, and reads their bodies."""

    def __init__(self) -> None:
        self.calls = 0
        self.body = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        if scope["method"] == "POST":
            self.body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


class Door:
    """A guard with its application and credentials, asked without a network."""

    def __init__(self, token_file: Path, limits: Limits = WIDE, **changes: Any) -> None:
        self.now_s = 0.0
        self.inner = Inner()
        settings = DeskSettings(Path("."), token_file, limits=limits, **changes)
        self.known = Credentials(token_file, clock=lambda: self.now_s)
        self.guard = Guard(self.inner, settings, self.known, clock=lambda: self.now_s)

    def ask(
        self,
        *headers: tuple[bytes, bytes],
        path: str = "/api/v1/sessions",
        method: str = "GET",
        body: tuple[bytes, ...] = (b"",),
        client: str = "127.0.0.1",
        host: tuple[tuple[bytes, bytes], ...] = (HOST,),
    ) -> tuple[int, dict[bytes, bytes]]:
        """(status, headers) of the answer."""
        scope = {
            "type": "http", "method": method, "path": path, "client": (client, 1),
            "headers": [*host, *headers],
        }  # fmt: skip
        sent: list[Any] = []
        pieces = [
            {"type": "http.request", "body": piece, "more_body": n + 1 < len(body)}
            for n, piece in enumerate(body)
        ]

        async def receive() -> Any:
            if pieces:
                return pieces.pop(0)
            await asyncio.sleep(3_600)

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"])


def bearer(text: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {text}".encode("utf-8", "surrogateescape")


@pytest.fixture
def door(token_file):
    """A guard that is never short of requests."""
    return Door(token_file)


WRONG = {
    "none": lambda _: (),
    "wrong": lambda n: (bearer(f"{n:064d}"),),
    "almost": lambda _: (bearer("the-right-token-" + "x" * 31),),
    "another server's": lambda _: (bearer("AbCdEf" * 8),),
    "basic": lambda _: ((b"authorization", b"Basic dGhlOnRva2Vu"),),
    "scheme alone": lambda _: ((b"authorization", b"Bearer"),),
    "bytes": lambda _: ((b"authorization", b"Bearer \xff\0\xfe"),),
    "cookie": lambda n: ((b"cookie", f"desk={n:064d}".encode()),),
    "broken cookie": lambda _: ((b"cookie", b"desk=\xff; =;;desk"),),
}


@pytest.mark.parametrize("kind", WRONG)
def test_two_thousand_requests_without_the_token_reach_nothing(door, kind):
    """One request in two thousand that is let through."""
    paths = ("/api/v1/sessions", "/metrics", "/", "/runs", "/sessions/0/live")
    for number in range(2_000 // len(WRONG) + 1):
        path = paths[number % len(paths)]
        status, _ = door.ask(*WRONG[kind](number), path=path)
        allowed = {401, 429} if path.startswith(("/api", "/metrics")) else {303, 401, 429}
        assert status in allowed
    assert door.inner.calls == 0


def test_an_expired_token_and_cookie_reach_nothing(door, token, token_file):
    """A session that outlives its twelve hours, a token that outlives its successor."""
    cookie = (b"cookie", f"desk={door.known.sign_in()}".encode())
    assert door.ask(cookie)[0] == door.ask(bearer(token))[0] == 200
    door.now_s = 13 * 3_600.0
    assert door.ask(cookie)[0] == 401
    token_file.write_text("another-token-" + "y" * 40)
    assert door.ask(bearer(token))[0] == 401
    assert door.inner.calls == 2


def test_the_right_token_is_never_locked_out_by_wrong_ones(token_file, token):
    """Anybody on this machine who locks its owner out with a loop of wrong tokens."""
    door = Door(token_file)
    statuses = [door.ask(bearer("x" * 40))[0] for _ in range(60)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert door.ask(bearer(token))[0] == 200


def test_two_tokens_in_one_request_are_none(door, token):
    """A proxy that adds its own, and two readers that take different ones."""
    assert door.ask(bearer(token), bearer("x" * 40))[0] == 401


@pytest.mark.parametrize(
    "hosts",
    [
        (), (b"",), (b"evil.example",), (b"evil.example:8470",), (b"127.0.0.1",),
        (b"127.0.0.1:80",), (b"127.0.0.1:8470", b"127.0.0.1:8470"), (b"127.0.0.1:8470@evil",),
        (b"127.0.0.1:8470.evil.example",), (b"localhost:8470\0",), (b"\xff:8470",),
    ],
)  # fmt: skip
def test_host_tricks_are_refused_before_the_token_is_looked_at(door, token, hosts):
    """DNS rebinding: a page of another name that reaches this desk through the browser."""
    headers = tuple((b"host", host) for host in hosts)
    status, answered = door.ask(bearer(token), host=headers)
    assert (status, door.inner.calls) == (400, 0)
    assert all(host not in answered.values() for host in hosts if host)


@pytest.mark.parametrize("host", [b"127.0.0.1:8470", b"LOCALHOST:8470", b"[::1]:8470"])
def test_its_own_names_are_answered(door, token, host):
    """A desk that cannot be reached by the address it printed."""
    assert door.ask(bearer(token), host=((b"host", host),))[0] == 200


@pytest.mark.parametrize(
    "sizes", [(b"262145",), (b"9" * 500,), (b"-1",), (b"1e3",), (b"1", b"2"), (b"",)]
)
def test_sizes_that_are_said_too_large_or_not_at_all(door, token, sizes):
    """A body of gigabytes that is read before it is refused."""
    headers = [(b"content-length", size) for size in sizes]
    status, _ = door.ask(bearer(token), *headers, method="POST", body=(b"x",))
    assert (status in (400, 413), door.inner.calls) == (True, 0)


def test_a_body_that_grows_beyond_what_is_allowed_is_cut_off(door, token):
    """Chunks without end, whose sum nobody counts."""
    status, answered = door.ask(bearer(token), method="POST", body=(b"x" * 100_000,) * 3)
    assert (status, door.inner.calls) == (413, 0)
    assert answered[b"connection"] == b"close"


def test_a_body_that_never_comes_is_given_up(token_file, token):
    """A request that holds its place for an hour."""
    door = Door(token_file, Limits(body_s=0.01))
    assert door.ask(bearer(token), method="POST", body=())[0] == 408
    assert door.inner.calls == 0


def test_a_small_body_arrives_whole(door, token):
    """A guard that eats what it lets through."""
    assert door.ask(bearer(token), method="POST", body=(b"ab", b"cd"))[0] == 200
    assert door.inner.body == b"abcd"


def test_one_address_cannot_ask_without_end(token_file, token):
    """A page that reloads in a loop and leaves nothing to others."""
    door = Door(token_file, Limits(per_second=10, burst=20))
    statuses = [door.ask(bearer(token))[0] for _ in range(30)]
    assert statuses == [200] * 20 + [429] * 10
    assert door.ask(bearer(token), client="127.0.0.2")[0] == 200
    door.now_s = 1.0
    assert [door.ask(bearer(token))[0] for _ in range(11)] == [200] * 10 + [429]


def test_addresses_are_forgotten(token_file):
    """A table that grows with every address that ever asked."""
    buckets = Buckets(1, 1, lambda: 0.0)
    for number in range(MAX_ADDRESSES + 500):
        buckets.take(str(number))
    assert len(buckets._left) == MAX_ADDRESSES


@pytest.mark.parametrize(
    "headers",
    [
        ((b"origin", b"https://evil.example"),), ((b"origin", b"null"),),
        ((b"sec-fetch-site", b"cross-site"),), ((b"sec-fetch-site", b"same-site"),),
        ((b"origin", b"http://127.0.0.1:9999"),), ((b"origin", b"https://127.0.0.1:8470"),),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/logout", "/login", "/api/v1/runs/0/score"])
def test_forms_of_other_pages_are_refused(door, headers, path):
    """Cross-site request forgery: another page that uses the browser's cookie."""
    cookie = (b"cookie", f"desk={door.known.sign_in()}".encode())
    status, _ = door.ask(cookie, *headers, path=path, method="POST")
    assert (status, door.inner.calls) == (403, 0)


def test_forms_of_its_own_pages_are_not(door):
    """A guard that keeps everybody from signing out."""
    cookie = (b"cookie", f"desk={door.known.sign_in()}".encode())
    ours = ((b"origin", b"http://127.0.0.1:8470"), (b"sec-fetch-site", b"same-origin"))
    assert door.ask(cookie, *ours, path="/logout", method="POST")[0] == 200


def test_no_other_origin_may_read_unless_listed(token_file, token):
    """A header that lets every page of the web read the API."""
    other, listed = (b"origin", b"https://b.example"), (b"origin", b"https://a.example")
    closed, door = Door(token_file), Door(token_file, origins=("https://a.example",))
    for asked, origin in ((closed, listed), (door, other)):
        _, headers = asked.ask(bearer(token), origin)
        assert not [name for name in headers if name.startswith(b"access-control")]
        assert asked.ask(origin, method="OPTIONS")[0] == 401
    _, headers = door.ask(bearer(token), listed)
    assert headers[b"access-control-allow-origin"] == b"https://a.example"
    assert b"access-control-allow-credentials" not in headers
    assert door.ask(listed, method="OPTIONS")[0] == 204
    assert door.ask(listed, path="/", method="OPTIONS")[0] == 401


def test_every_answer_carries_the_headers(door, token):
    """A refusal without them, which is a page all the same."""
    answers = [
        door.ask(bearer(token)), door.ask(), door.ask(host=()), door.ask(path="/"),
        door.ask(path="/login"),
    ]  # fmt: skip
    for _, headers in answers:
        assert set(HEADERS) <= {name.decode() for name in headers}
    assert b"unsafe-eval" not in answers[0][1][b"content-security-policy"]
    scripts = answers[0][1][b"content-security-policy"].split(b"script-src")[1].split(b";")[0]
    assert scripts == b" 'self'"


def test_encrypted_desks_say_so_to_browsers(token_file, token):
    """A browser that comes back without encryption."""
    door = Door(token_file, behind_proxy=True, names=("d.example",))
    host = ((b"host", b"d.example"),)
    assert b"strict-transport-security" in door.ask(bearer(token), host=host)[1]
    cookie = f"__Host-desk={door.known.sign_in()}".encode()
    assert door.ask((b"cookie", cookie), host=host)[0] == 200
    assert door.ask((b"cookie", cookie.replace(b"__Host-", b"")), host=host)[0] == 401


def test_websockets_are_closed(door):
    """A door beside the door."""
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(door.guard({"type": "websocket"}, None, send))
    assert (sent[0]["type"], door.inner.calls) == ("websocket.close", 0)
