"""What the exchange states about a symbol, compared with what it stated before."""

from __future__ import annotations

from copy import deepcopy

from cppncripto_strategy.feeds.binance.filters import exchange_info, symbol_info
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS
from cppncripto_strategy.feeds.live.notices import RulesChanged
from cppncripto_strategy.feeds.live.rules import RulesWatch

ENTRY = symbol_info("BTCUSDT", PLANTED_FILTERS.filters)
STATED_MS = 1_714_521_600_000


def changed(status: str = "TRADING", step: str | None = None) -> dict:
    """The entry with another status or quantity step."""
    entry = deepcopy(ENTRY) | {"status": status}
    if step is not None:
        next(r for r in entry["filters"] if r["filterType"] == "LOT_SIZE")["stepSize"] = step
    return entry


def answer(*entries: dict) -> dict:
    return exchange_info(STATED_MS, 6000, list(entries))


def test_a_change_is_named_once_with_both_entries():
    """A lot step that changed while a session ran, and nobody knows which rule it was."""
    watch = RulesWatch({})
    assert watch.compare(answer(ENTRY)) == []
    after = changed("BREAK", "1.00000000")
    expected = RulesChanged("BTCUSDT", ENTRY, after, ("status", "LOT_SIZE"), STATED_MS)
    assert [expected] == watch.compare(answer(after))
    assert watch.compare(answer(after)) == []


def test_what_changed_while_nobody_looked_is_a_change():
    """A session started again under other rules than it recorded."""
    watch = RulesWatch({"BTCUSDT": changed(step="1.00000000")})
    (change,) = watch.compare(answer(ENTRY))
    assert change.changed == ("LOT_SIZE",)


def test_a_symbol_that_is_left_out_keeps_its_rules():
    """A symbol left out of one answer, and called changed by the next."""
    watch = RulesWatch({"BTCUSDT": ENTRY})
    assert watch.compare(answer()) == []
    assert watch.compare(answer(ENTRY)) == []
