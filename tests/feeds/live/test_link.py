"""The connections of a stream as one: what is said when they come and go."""

from __future__ import annotations

from cppncripto_strategy.feeds.live.link import REASON_LENGTH, Link
from cppncripto_strategy.feeds.live.notices import Connected, ConnectionLost, Notice


def test_only_a_change_of_the_whole_is_told() -> None:
    """Many symbols over two connections: a loss that is told twice, or a return too early."""
    heard: list[Notice] = []
    now_s = [100.0]
    link = Link(2, heard.append, lambda: now_s[0])
    link.lost(0, "refused")  # before it ever stood
    link.opened(0)
    assert not link.whole
    link.opened(1)
    link.opened(1)
    assert link.whole
    now_s[0] = 110.0
    link.lost(1, "reset")
    now_s[0] = 111.0
    link.lost(0, "reset too")
    link.lost(1, "refused")
    assert not link.whole
    link.opened(1)
    now_s[0] = 112.5
    link.opened(0)
    link.end()
    assert not link.whole
    assert heard == [Connected(None), ConnectionLost("reset"), Connected(2.5)]


def test_a_server_that_answers_with_a_page_is_cut_short() -> None:
    """A megabyte of HTML in the session's events, at every reconnection."""
    heard: list[Notice] = []
    link = Link(1, heard.append)
    link.opened(0)
    link.lost(0, "x" * 1_000_000)
    assert heard[-1] == ConnectionLost("x" * REASON_LENGTH)
