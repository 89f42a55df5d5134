"""The desk on a real port: what a socket can do to it that a request in-process cannot."""

from __future__ import annotations

import socket
import time

import pytest

pytest.importorskip("uvicorn")

from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.desk.server import bind
from cppncripto_strategy.desk.settings import DeskSettings
from cppncripto_strategy.errors import DeskError

PATIENCE_S = 20.0


def talk(port: int, sent: bytes, then: bytes = b"") -> bytes:
    """All that comes back until the desk closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        if then:
            connection.sendall(then)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
        return answer


def request(port: int, token: str, path: str = "/api/v1/health", *more: str) -> bytes:
    """A request as a client writes it."""
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, "Connection: close", *more, "", ""]).encode()


@pytest.fixture
def port(results, token_file, serving):
    """A desk with little patience."""
    with serving(results, token_file, head_s=0.5, head_bytes=4_096, connections=12) as port:
        yield port


def test_it_answers_and_does_not_name_its_server(port, token):
    """A version that tells an attacker what to look up."""
    answer = talk(port, request(port, token))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nserver:" not in answer.lower()
    assert b"content-security-policy" in answer


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: 127", b"\0" * 10, b"GET /" + b"a" * 3_000]
)
def test_who_does_not_finish_its_headers_is_cut_off(port, token, sent):
    """A hundred connections that each send a byte a minute, and hold every place."""
    answer = talk(port, sent)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert talk(port, request(port, token)).startswith(b"HTTP/1.1 200")


def test_a_second_request_is_as_impatient_as_the_first(port, token):
    """A connection kept alive by one honest request and never ended."""
    honest = request(port, token).replace(b"Connection: close\r\n", b"")
    answer = talk(port, honest, b"GET /api/v1/health HTTP/1.1\r\nHost:")
    assert answer.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    "more",
    ["X: " + "a" * 10_000, "Host: evil.example", "Content-Length: 5\r\nTransfer-Encoding: chunked",
     "Bad Header: 1", "Content-Length: -5"],
)  # fmt: skip
def test_headers_that_are_too_large_doubled_or_smuggled(port, token, more):
    """Two lengths in one request, of which proxy and desk believe different ones."""
    answer = talk(port, request(port, token, "/api/v1/health", more))
    assert answer.split(b" ")[1] in (b"400", b"413", b"431")


def test_paths_on_the_wire_are_not_resolved(port, token):
    """GET /../../etc/passwd, as curl --path-as-is sends it."""
    for path in ("/../../etc/passwd", "//etc/passwd", "/static/../../../etc/passwd",
                 "http://evil.example/", "/static/%2e%2e/%2e%2e/etc/passwd"):  # fmt: skip
        answer = talk(port, request(port, token, path))
        assert answer.split(b" ")[1] in (b"400", b"404", b"422", b"307")
        assert b"root:" not in answer


def test_connections_are_bounded(port, token):
    """Idle connections without end, of which each costs memory."""
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(16)]
    try:
        statuses = {talk(port, request(port, token)).split(b" ")[1] for _ in range(3)}
        assert statuses <= {b"503", b"200"}
    finally:
        for connection in held:
            connection.close()
    until_s = time.monotonic() + PATIENCE_S
    while not talk(port, request(port, token)).startswith(b"HTTP/1.1 200"):
        assert time.monotonic() < until_s


def test_a_taken_port_is_one_sentence(port, results, token_file):
    """A traceback where two desks were started."""
    with pytest.raises(DeskError, match="another"):
        bind(DeskSettings(results, token_file, port=port))


def test_a_live_page_hears_of_a_candle(copy_of, desk, token_file, token, serving):
    """A page that has to be reloaded; events that come without anything new."""
    [entry] = Listing(copy_of).of("session")
    with serving(copy_of, token_file) as port:
        path = f"/sessions/{entry.id}/live"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(request(port, token, path))
            heard = b""
            while b"data: look" not in heard:
                heard += connection.recv(4_096)
            assert b"text/event-stream" in heard
            desk.append(entry.path, desk.round_records(desk.rounds))
            again = b""
            while b"data: look" not in again:
                piece = connection.recv(4_096)
                assert piece
                again += piece


def test_an_open_page_does_not_hold_the_desk_back(results, token_file, token, serving, caplog):
    """Ctrl-C that ends in a traceback for every page that stands open."""
    [entry] = Listing(results).of("session")
    with serving(results, token_file) as port:
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        connection.sendall(request(port, token, f"/sessions/{entry.id}/live"))
        heard = b""
        while b"data: look" not in heard:
            heard += connection.recv(4_096)
    while connection.recv(4_096):
        pass
    connection.close()
    assert "Traceback" not in caplog.text
