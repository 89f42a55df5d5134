"""Pages that follow a session: one look for all of them, each told, none held back by another."""

from __future__ import annotations

import asyncio

import pytest

from cppncripto_strategy.desk import streams
from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.desk.sessions import SessionWatch
from cppncripto_strategy.desk.streams import EVENT, Streams

PATIENCE_S = 60.0


class Counted(SessionWatch):
    """A watch that counts how often its journals were looked at."""

    looks = 0

    def sizes(self):
        self.looks += 1
        return super().sizes()


@pytest.fixture
def watch(copy_of, monkeypatch):
    """A session whose journals are looked at all the time."""
    monkeypatch.setattr(streams, "LOOK_S", 0.0)
    monkeypatch.setattr(streams, "ALIVE_S", 1_000.0)
    [entry] = Listing(copy_of).of("session")
    return Counted(entry)


def test_a_candle_is_told_to_all_and_looked_for_once(watch, desk):
    """Fifty pages that each ask the disk four times a second whether anything is new."""

    async def test() -> None:
        some = Streams(10)
        followers = [some.of(watch) for _ in range(3)]
        assert [await anext(one) for one in followers] == [EVENT] * 3
        waiting = [asyncio.create_task(anext(one)) for one in followers]
        looks = watch.looks
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)  # nothing was written
        assert watch.looks - looks <= 20  # not so often for each
        stirs = watch.stirs
        desk.append(watch.entry.path, desk.round_records(desk.rounds))
        assert await asyncio.gather(*waiting) == [EVENT] * 3
        assert watch.stirs > stirs  # the next who looks sees it
        for one in followers:
            await one.aclose()
        await asyncio.sleep(0)
        looks = watch.looks
        for _ in range(20):
            await asyncio.sleep(0)
        assert watch.looks == looks  # nobody follows: nobody looks

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_what_came_between_two_events_is_not_missed(watch, desk):
    """A candle that was written while a slow page still read of the one before."""

    async def test() -> None:
        some = Streams(10)
        slow, quick = some.of(watch), some.of(watch)
        await anext(slow), await anext(quick)
        desk.append(watch.entry.path, desk.round_records(desk.rounds))
        await anext(quick)
        assert await anext(slow) == EVENT  # at once: nothing more is written
        await slow.aclose(), await quick.aclose()

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))


def test_pages_are_bounded_and_end_with_the_desk(watch):
    """A desk that cannot end while a page stands open; pages without end."""

    async def test() -> None:
        some = Streams(1)
        one = some.of(watch)
        await anext(one)
        assert not some.free
        rest = asyncio.create_task(anext(one, None))
        await asyncio.sleep(0)
        some.stop()
        assert await rest is None
        assert not some.free  # it ends

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
