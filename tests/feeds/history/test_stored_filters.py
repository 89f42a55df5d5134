"""The exchange's rules beside the candles: kept whole, dated, and read back as they were."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest

from cppncripto_strategy import atomic
from cppncripto_strategy.errors import SourceError, StoreError
from cppncripto_strategy.feeds.binance.filters import symbol_info
from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.feeds.history.ledger import job_lock
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.history.stored_filters import (
    filters_path,
    recorded_filters,
    store_filters,
    stored_filters,
)

MARKET = Path(os.environ.get("CPPN_BT_REAL_MARKET", "absent"))
RULES = SymbolFilters(
    lot_step=Decimal("1"),
    min_qty=Decimal("1"),
    max_qty=Decimal("46116860414"),
    min_notional=Decimal("1"),
    tick_size=Decimal("0.00000001"),
)
ENTRY = symbol_info("SHIBUSDT", RULES)
NOON_MS = 1_700_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store that has candles of SHIBUSDT."""
    filters_path(tmp_path, "SHIBUSDT").parent.mkdir()
    return tmp_path


def test_rules_come_back_as_the_exchange_stated_them(root):
    """A tick of 1e-8 that has become 0.01 on the way, or a date that is the day of reading."""
    assert stored_filters(root, "SHIBUSDT") is None
    store_filters(root, "SHIBUSDT", ENTRY, NOON_MS)
    known = stored_filters(root, "SHIBUSDT")
    assert known is not None
    assert (known.filters, known.stated_ms, known.quote) == (RULES, NOON_MS, "USDT")


def test_the_same_answer_changes_nothing_and_another_one_replaces_it(root):
    """A store that differs after every fetch, or rules that stay those of the first day."""
    store_filters(root, "SHIBUSDT", ENTRY, NOON_MS)
    before = filters_path(root, "SHIBUSDT").read_bytes()
    store_filters(root, "SHIBUSDT", ENTRY, NOON_MS + 1)
    assert before == filters_path(root, "SHIBUSDT").read_bytes()
    store_filters(root, "SHIBUSDT", {**ENTRY, "status": "HALT"}, NOON_MS + 2)
    known = stored_filters(root, "SHIBUSDT")
    assert known is not None
    assert (known.filters.status, known.stated_ms) == ("HALT", NOON_MS + 2)


def test_a_full_disk_leaves_the_old_rules(root, monkeypatch):
    """Half a JSON file in the place of rules that were whole."""
    store_filters(root, "SHIBUSDT", ENTRY, NOON_MS)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StoreError, match="left as it was"):
        store_filters(root, "SHIBUSDT", {**ENTRY, "status": "HALT"}, NOON_MS)
    assert json.loads(filters_path(root, "SHIBUSDT").read_text())["entry"] == ENTRY


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entry": 1, "stated_ms": 2}', "\xff"])
def test_a_damaged_file_is_named(root, text):
    """A traceback of json where a sentence with the file's name belongs."""
    filters_path(root, "SHIBUSDT").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=r"_filters\.json is not a readable record"):
        stored_filters(root, "SHIBUSDT")
    store_filters(root, "SHIBUSDT", ENTRY, NOON_MS)  # the exchange's answer repairs it
    assert stored_filters(root, "SHIBUSDT") is not None


def test_a_symbol_without_candles_gets_no_folder(tmp_path):
    """A series made of nothing but rules, by a misspelt symbol."""
    store_filters(tmp_path, "SHIBUSDT", ENTRY, NOON_MS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", '{"symbols": [1]}', '{"symbols": [{"symbol": "X"}]}'])
def test_another_file_is_no_recorded_answer(tmp_path, text):
    """A KeyError where the recipe names the wrong JSON file."""
    file = tmp_path / "info.json"
    file.write_text(text)
    with pytest.raises(SourceError, match=r"info\.json is not a readable recorded exchangeInfo"):
        recorded_filters(file)


@pytest.mark.real
@pytest.mark.skipif(not (MARKET / "payloads").is_dir(), reason="no recorded payloads")
def test_a_recorded_answer_is_read_with_its_date():
    """BTC's rules for DOGE: whole coins and a tick of 0.0001 stand in the answer of 2021."""
    (file,) = (MARKET / "payloads" / "rest").glob("exchangeInfo_spot_*.json")
    known = recorded_filters(file)["DOGEUSDT"]
    assert (Decimal(1), Decimal("0.0001")) == (known.filters.lot_step, known.filters.tick_size)
    assert known.to_plain()["stated"] == "2021-10-12"


def test_what_a_killed_writer_left_is_gone_with_the_next_job(tmp_path):
    """A half-written file of filters that lies in the store always."""
    store = CandleStore(tmp_path)
    left = tmp_path / "symbol=BTCUSDT" / "._filters.json.abc.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with job_lock(store):
        assert not left.exists()
