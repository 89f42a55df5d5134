"""The exchange's statement of a symbol's rules, kept beside its candles.

    root/symbol=BTCUSDT/_filters.json

holds the entry of exchangeInfo as it was received, and when it was first received so: an answer
that says the same again changes nothing. Parquet readers of the folder pass over files whose name
begins with an underscore.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cppncripto_strategy.errors import SourceError, StoreError
from cppncripto_strategy.feeds.binance.answers import Json, is_time
from cppncripto_strategy.feeds.binance.endpoints import API_PATH, INFO
from cppncripto_strategy.feeds.binance.filters import known_filters, read_info, stated_filters
from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.feeds.filters import KnownFilters
from cppncripto_strategy.feeds.history.store import check_symbol, write_atomically
from cppncripto_strategy.foreign import read_object, reading

FILE = "_filters.json"

logger = logging.getLogger(__name__)


def filters_path(root: Path, symbol: str) -> Path:
    """Where a store keeps a symbol's filters, whether it has them or not."""
    return root / f"symbol={check_symbol(symbol)}" / FILE


def store_filters(root: Path, symbol: str, entry: Mapping[str, Any], stated_ms: int) -> None:
    """Keep one symbol's entry of exchangeInfo, unless it is the one that is there.

    Raises
    ------
    StoreError
        When it cannot be written; what was there is as it was.
    """
    path = filters_path(root, symbol)
    try:
        if _read(path)["entry"] == entry:
            return
    except (FileNotFoundError, StoreError):
        pass  # none yet, or a damaged one: the exchange's answer is better
    if not path.parent.is_dir():
        return  # no candles, no filters
    document = {"symbol": symbol, "stated_ms": stated_ms, "entry": entry}
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
    logger.info("%s: filters as the exchange stated them at %s", symbol, ms_to_utc(stated_ms))


def stored_filters(root: Path, symbol: str) -> KnownFilters | None:
    """The filters that `fetch` kept beside a symbol's candles; None where it kept none.

    Raises
    ------
    StoreError
        When the file is damaged.
    SourceError
        When the exchange's entry lacks a filter that orders need.
    """
    path = filters_path(root, symbol)
    try:
        kept = _read(path)
    except FileNotFoundError:
        return None
    return known_filters(kept["entry"], kept["stated_ms"], "the exchange, kept by fetch")


def _read(path: Path) -> Json:
    if not path.exists():
        raise FileNotFoundError(path)
    fix = "Delete it and run `cppn-bt fetch` again"
    with reading(path, "record of a symbol's filters", StoreError, fix):
        kept = read_object(path)
        if not isinstance(kept["entry"], dict) or not is_time(kept["stated_ms"]):
            raise ValueError("entry or stated_ms is of another kind")
        return kept


def recorded_filters(path: Path) -> dict[str, KnownFilters]:
    """Filters of every symbol in a recorded answer of GET /api/v3/exchangeInfo, by symbol.

    Raises
    ------
    SourceError
        When the file cannot be read, or is no such answer.
    """
    fix = f"Expected the JSON answer of GET {API_PATH}/v3/{INFO}"
    with reading(path, f"recorded {INFO}", SourceError, fix):
        info = read_info(read_object(path))
    return stated_filters(info, f"the exchange, recorded in {path.name}")
