"""A stream's socket: what cannot be parsed is counted, and nothing else happens."""

from __future__ import annotations

import asyncio

import pytest

from cppncripto_strategy.feeds.live.stream_socket import StreamSocket


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "9" * 5_000, "\x00", "", '"\\ud800'])
def test_a_message_that_breaks_the_parser_is_malformed(text):
    """A read loop that dies of deep nesting or of a number of five thousand digits."""

    async def work() -> tuple[object, int]:
        socket = StreamSocket(
            "ws://127.0.0.1:9", "stream?", "streams=x", timeout_s=0.1, queue_frames=10
        )
        return socket._handle_message(text), socket.take_malformed()

    assert asyncio.run(work()) == (None, 1)
