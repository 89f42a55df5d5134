"""Notices as records: what a journal holds of them is what JSON gives back."""

from __future__ import annotations

import json
import math

import pytest

from cppncripto_strategy.feeds.live import notices

CANDLE = (0, 1.0, 2.0, 0.5, 1.5, 3.0, 4.5, 7.0, math.nan, math.nan)
EVERY = [
    notices.Connected(None),
    notices.Connected(1.5),
    notices.ConnectionLost("OSError: gone"),
    notices.ClockDisagrees({"rest": 5, "frames": 7}, 1, None),
    notices.ClockAgrees({"rest": 5, "frames": 5}),
    notices.GapWithdrawn("BTCUSDT", 0, CANDLE),
    notices.Restated("BTCUSDT", 0, CANDLE, CANDLE),
    notices.SymbolStopped("BTCUSDT", "status BREAK", 30.0, 0),
    notices.SymbolBack("BTCUSDT"),
    notices.RulesChanged("BTCUSDT", {"filters": [{}]}, {"filters": ()}, ("status",), None),
]


def test_every_kind_of_notice_is_tried_here():
    """A notice that is added and never written to a journal in a test."""
    assert {kind.kind for kind in notices.Notice.__subclasses__()} == {n.kind for n in EVERY}


@pytest.mark.parametrize("notice", EVERY, ids=lambda notice: notice.kind)
def test_a_record_reads_back_as_it_was(notice):
    """A record with NaN or a tuple: not what was written, once it is read."""
    record = notice.record()
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert notice.kind == record["kind"]
    assert set(notice.__slots__) | {"kind"} == set(record)
