"""What waits for a target: batches, quiet hours, retries, bounds, and what a kill leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("apprise")

from cppncripto_strategy.desk.alerts.kinds import Alert
from cppncripto_strategy.desk.alerts.outbox import LINES, Outbox, is_quiet, words_of
from cppncripto_strategy.desk.alerts.settings import Quiet
from cppncripto_strategy.feeds.clock import HOUR_MS, utc_to_ms

NOON = utc_to_ms("2026-01-15 12:00")
BATCH_MS = 2_000
FIRST_S, MOST_S, GIVE_UP_H = 5.0, 60.0, 1.0


@pytest.fixture
def box(acting) -> Any:
    """Function of a record, and of settings: an outbox."""

    def made(kept: dict[str, Any] | None = None, **settings: Any) -> Outbox:
        patience = {"retry_first_s": FIRST_S, "retry_most_s": MOST_S, "give_up_h": GIVE_UP_H}
        patience |= settings.pop("delivery", {})
        return Outbox("phone", acting.parsed({"delivery": patience, **settings}), kept)

    return made


def alert(number: int, kind: str = "fill", session: str = "real") -> Alert:
    """One of many."""
    return Alert(f"{number:016x}", kind, session, "AUSDT", NOON + number, f"number {number}")


def ids(message: dict[str, Any] | None) -> list[int]:
    """Numbers of a message's alerts."""
    return [] if message is None else [int(a["id"], 16) for a in message["alerts"]]


def test_several_of_one_kind_are_one_message(box):
    """Three hundred fills, three hundred messages."""
    outbox = box()
    for number in range(3):
        outbox.put(alert(number), NOON + 500 * number)
    outbox.put(alert(9, "gap"), NOON + 1_500)
    assert outbox.due(NOON + BATCH_MS - 1) is None
    message = outbox.due(NOON + BATCH_MS)
    assert ids(message) == [0, 1, 2]
    assert message["title"] == "real: fill (3)"
    assert outbox.due(NOON + 10 * BATCH_MS) is None  # one at a time
    outbox.arrived()
    assert ids(outbox.due(NOON + 10 * BATCH_MS)) == [9]
    outbox.arrived()
    assert outbox.empty


def test_what_is_critical_does_not_wait(box):
    """A death that waits for others of its kind."""
    outbox = box()
    outbox.put(alert(1), NOON)
    outbox.put(alert(2, "died"), NOON)
    assert ids(outbox.due(NOON)) == [2]


def test_a_failure_is_tried_again_ever_less_often_until_it_is_given_up(box, caplog):
    """A service that is down for a minute and an alert that is lost; or hammered for a week."""
    outbox, now, waits = box(), NOON, []
    outbox.put(alert(1, "died"), now)
    while outbox.due(now) is not None:
        outbox.failed("refused", now)
        if outbox.empty:
            break
        before = now
        while outbox.due(now) is None:
            now += 1_000
        outbox.failed("refused", now)
        if outbox.empty:
            break
        waits.append((now - before) / 1000)
        now += 10**9 if now - NOON > GIVE_UP_H * HOUR_MS else 0
        now += int(MOST_S * 1000)
    assert outbox.empty
    assert waits[0] == FIRST_S
    assert max(waits) == MOST_S
    assert waits == sorted(waits)
    assert "1 alerts dropped, they never arrived (refused)" in caplog.text
    outbox.put(alert(2, "died"), now)
    message = outbox.due(now)
    assert message["dropped"] == 1
    assert "1 earlier alerts were dropped" in words_of(message)
    outbox.arrived()
    assert outbox.dropped == 0


def test_a_message_that_nobody_takes_holds_back_no_critical_one(box):
    """A program that fails on one fill, and a death that waits behind it for a day."""
    outbox = box()
    outbox.put(alert(1), NOON)
    assert ids(outbox.due(NOON + BATCH_MS)) == [1]
    outbox.failed("status 1", NOON + BATCH_MS)
    outbox.put(alert(2, "gap"), NOON)
    outbox.put(alert(3, "died"), NOON + BATCH_MS)
    assert ids(outbox.due(NOON + BATCH_MS)) == [3]
    outbox.arrived()
    assert outbox.due(NOON + BATCH_MS) is None
    assert ids(outbox.due(NOON + BATCH_MS + int(FIRST_S * 1000))) == [1]


def test_a_full_queue_drops_what_matters_least_and_says_so(box, caplog):
    """Memory that grows while a service is down; a death dropped for a fill; or in silence."""
    outbox = box(delivery={"queue": 10})
    outbox.put(alert(0, "died"), NOON)
    for number in range(1, 13):
        outbox.put(alert(number), NOON)
    assert outbox.dropped == 3
    assert caplog.text.count("its queue is full") == 3
    assert ids(outbox.due(NOON)) == [0]
    outbox.arrived()
    assert ids(outbox.due(NOON + BATCH_MS)) == list(range(4, 13))


def test_quiet_hours_hold_back_until_they_end(box):
    """A telephone that rings at night for a fill; a death that waits until the morning."""
    quiet = {"start": "22:00", "end": "07:00", "timezone": "Europe/Berlin"}
    outbox = box(quiet=quiet)
    night = utc_to_ms("2026-01-15 21:30")  # 22:30 there
    outbox.put(alert(1), night)
    outbox.put(alert(2, "died"), night)
    outbox.put(alert(3), night + HOUR_MS)
    assert ids(outbox.due(night)) == [2]
    outbox.arrived()
    assert outbox.due(utc_to_ms("2026-01-16 05:59")) is None
    assert ids(outbox.due(utc_to_ms("2026-01-16 06:00"))) == [1, 3]


@pytest.mark.parametrize(
    ("start", "end", "zone", "moment", "quiet"),
    [
        ("22:00", "07:00", "UTC", "2026-01-15 21:59", False),
        ("22:00", "07:00", "UTC", "2026-01-15 22:00", True),
        ("22:00", "07:00", "UTC", "2026-01-15 03:00", True),
        ("22:00", "07:00", "UTC", "2026-01-15 07:00", False),
        ("01:00", "05:00", "UTC", "2026-01-15 04:59", True),
        ("01:00", "05:00", "UTC", "2026-01-15 00:59", False),
        # Summer time: 06:30 UTC is 08:30 there, in winter 07:30.
        ("22:00", "08:00", "Europe/Berlin", "2026-07-15 06:30", False),
        ("22:00", "08:00", "Europe/Berlin", "2026-01-15 06:30", True),
    ],
)
def test_quiet_hours_are_local_and_may_pass_midnight(start, end, zone, moment, quiet):
    """Quiet by day, or an hour off in summer."""
    hours = Quiet.model_validate({"start": start, "end": end, "timezone": zone})
    assert is_quiet(hours, utc_to_ms(moment)) == quiet
    assert not is_quiet(None, utc_to_ms(moment))


@pytest.mark.parametrize("moment", ["waiting", "flying", "failed"])
def test_a_record_continues_where_its_outbox_was(box, moment):
    """A restart that forgets what waits, or sends what arrived."""
    outbox = box()
    outbox.put(alert(1, "died"), NOON)
    if moment != "waiting":
        assert ids(outbox.due(NOON)) == [1]
    if moment == "failed":
        outbox.failed("refused", NOON)
    again = box(json.loads(json.dumps(outbox.record())))
    soon = again.due(NOON)
    if moment == "failed":
        assert soon is None
        assert ids(again.due(NOON + int(FIRST_S * 1000))) == [1]
        return
    assert ids(soon) == [1]
    assert soon["again"] == (moment == "flying")
    assert ("may be a repetition" in words_of(soon)) == (moment == "flying")
    again.arrived()
    assert box(json.loads(json.dumps(again.record()))).empty


def test_a_clock_that_is_set_back_holds_nothing_up(box):
    """A machine whose clock was a year ahead, and a year without alerts."""
    outbox = box()
    outbox.put(alert(1), NOON)
    assert ids(outbox.due(NOON - 10**9)) == [1]
    outbox.failed("refused", NOON - 10**9)
    assert ids(outbox.due(NOON - 10**10)) == [1]


def test_a_long_message_is_cut_short_for_people(box):
    """A thousand lines on a telephone."""
    outbox = box()
    for number in range(LINES + 5):
        outbox.put(alert(number, session="ab"[number % 2]), NOON)
    message = outbox.due(NOON + BATCH_MS)
    lines = words_of(message).splitlines()
    assert lines[0] == "a: number 0"
    assert lines[-1] == "and 5 more"
    assert len(lines) == LINES + 1
    assert message["title"] == "2 sessions: fill (25)"
    assert len(message["alerts"]) == LINES + 5
