"""How much the exchange can honestly send: a bound on everything that is received.

A candle's text, as archives carry it, is at most 256 bytes: twelve fields, of which times have 16
digits, prices up to 20 characters and volumes up to 22 (real ones take 120 to 150 bytes). Digits
pack to less than half of that. So an archive is bounded by the candles that its period can hold;
the largest is a month of 1-second candles: 2,678,400 rows, 686 MB of text, 343 MB of zip (real ones
have about 390 MB and 90 MB). A page of REST holds 1,000 candles; an entry of exchangeInfo has 4 to
12 kB.

What is larger is refused while it arrives, whatever its headers say. What is slower than
`SLOWEST_BYTES_PER_S` is given up, so a body's time is bounded by its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from cppncripto_strategy.feeds.binance.endpoints import API_PATH, INFO, KLINES
from cppncripto_strategy.feeds.binance.klines import PAGE_ROWS
from cppncripto_strategy.feeds.clock import Span

ROW_BYTES = 256
PACKED_ROW_BYTES = 128
# Rows off the grid after an outage come on top of a period's own.
SPARE_ROWS = 1_000
SPARE_BYTES = 65_536
CHECKSUM_BYTES = 1_024
# A zip of one member has a directory of 150 bytes; a comment may have 64 KiB.
DIRECTORY_BYTES = 131_072
ENTRY_BYTES = 32_768
# Rows of one archive that may break a rule before the whole file counts as damaged. The worst real
# ones are the 1-minute candles of days after an outage that opened some seconds off the grid.
BROKEN_ROWS = 20_000
SLOWEST_BYTES_PER_S = 32_768
# Archives may move on their own host; REST never does.
REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class ArchiveBounds:
    """The most that one archive can honestly hold: candles, bytes of text, bytes of its zip."""

    rows: int
    text_bytes: int
    zip_bytes: int


def archive_bounds(span: Span, interval_ms: int) -> ArchiveBounds:
    """The bounds of an archive of candles that open in a span."""
    rows = (span.end_ms - span.start_ms) // interval_ms + 1 + SPARE_ROWS
    return ArchiveBounds(
        rows, rows * ROW_BYTES + SPARE_BYTES, rows * PACKED_ROW_BYTES + SPARE_BYTES
    )


def rest_bytes(path: str, query: str = "") -> int:
    """Bytes of an answer of REST, unpacked, by the path and the query of its request."""
    end_point = path.removeprefix(API_PATH).rpartition("/")[2]
    if end_point == KLINES:
        return PAGE_ROWS * ROW_BYTES + SPARE_BYTES
    if end_point == INFO:
        symbols = 1 + query.count(",") + query.upper().count("%2C")
        return symbols * ENTRY_BYTES + 4 * SPARE_BYTES
    return SPARE_BYTES
