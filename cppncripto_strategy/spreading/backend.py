"""What a backend is: it takes calls, and brings what they say while they are made.

Left out: what is done when a worker is lost (`crew`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

Call: TypeAlias = Callable[..., Any]
News: TypeAlias = tuple[int, str]
"""The number of a call, and an event of it as JSON: the same plain values by every way."""
Send: TypeAlias = Callable[[int, str], None]


class Backend(Protocol):
    """Where calls go. `submit` gives a future of what `make` gives."""

    size: int

    def submit(
        self, function: Call, arguments: tuple[Any, ...], number: int | None
    ) -> Future[tuple[Any, int]]:
        """Begin a call; with a number, the function is handed what it says events with."""

    def news(self) -> list[News]:
        """What calls have said since this was asked last."""

    def renew(self) -> None:
        """Make it work again after a worker was lost."""

    def idle(self) -> bool:
        """Whether it has workers, and none of them does anything."""


class _Say:
    """Sends the events of one call, and counts them."""

    def __init__(self, number: int, send: Send) -> None:
        self._number, self._send, self.count = number, send, 0

    def __call__(self, event: Any) -> None:
        self.count += 1
        self._send(self._number, json.dumps(event))


def make(
    function: Call,
    shared: Any,
    arguments: tuple[Any, ...],
    number: int | None,
    send: Send,
) -> tuple[Any, int]:
    """In a worker: the result of a call, and how many events it sent."""
    if number is None:
        return function(shared, *arguments), 0
    say = _Say(number, send)
    return function(shared, *arguments, say), say.count
