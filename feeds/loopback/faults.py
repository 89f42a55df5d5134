"""Faults of the loopback exchange: the fault matrix of the real one, scripted or random.

A scripted fault strikes where a test says; a random one is drawn from a seed and the thing it
strikes (a request's text and attempt, a symbol and its candle), never from the order in which
tasks happen to run, so one seed is one schedule.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cppncripto_strategy.feeds.binance.archive import ROOT as ARCHIVE_ROOT
from cppncripto_strategy.feeds.binance.endpoints import KLINES

# What breaks an answer of any kind on its way.
BREAKS = (
    "hang",  # nothing comes, the connection stays
    "reset",  # TCP reset
    "truncated",  # the connection ends before Content-Length is reached
    "endless",  # chunks without end
    "slow",  # a byte a second
    "lying_length",  # a Content-Length of a terabyte
    "redirect",  # to another host
    "moved",  # to the same address
)
# A 429 that does not say how long to wait, or says nonsense.
ODD_WAITS = ("429_now", "429_past", "429_never", "429_text", "429_silent")
REST_FAULTS = (
    "429",  # too much weight, with Retry-After
    "418",  # banned, with Retry-After
    "403",  # the firewall
    "500",
    "503",
    "502_html",
    "200_html",
    "empty",  # 200 without a body
    "bad_json",  # 200 with broken JSON
    "deep_json",  # 90,000 lists in each other
    "many_rows",  # a million rows
    "long_number",  # of 90,000 digits
    "bomb",  # 3 MB of gzip that unpack to 3.2 GB
    *ODD_WAITS,
    *BREAKS,
)
CHECKSUM_FAULTS = (
    "bad_checksum",  # the .CHECKSUM belongs to other bytes
    "other_name_checksum",
    "two_line_checksum",
    "html_checksum",
    "binary_checksum",
    "long_checksum",
)
ZIP_FAULTS = (
    "truncated_zip",  # half of the zip, as if it were whole
    "corrupt_zip",  # a byte of the zip flipped
    "empty_zip",
    "encrypted_zip",  # the flag alone
    *("lzma_zip", "bzip2_zip", "unknown_method_zip"),
    "wrong_crc_zip",
    "lying_size_zip",  # 4 GB, it says
    "bomb_zip",  # 3 MB that unpack to 3.2 GB
    "lying_bomb_zip",  # the same, and it says 1,000 bytes
    "negative_seek_zip",
    "huge_directory_zip",
    "zip64_zip",  # an end record that claims an exabyte
    *("two_members_zip", "many_members_zip", "overlapping_zip"),
    *("folder_zip", "absolute_name_zip", "climbing_name_zip"),
    *("nul_zip", "latin1_zip", "html_zip", "long_line_zip"),
    "many_rows_zip",  # 200 times as many as its period has
    "infinite_taker_zip",  # every row breaks a rule; the checksum is right
)
# Strike a checksum: it and the next zip belong together, and the zip is damaged all the same.
FORGERIES = tuple(f"forged_{kind}" for kind in ZIP_FAULTS)
ARCHIVE_FAULTS = (*CHECKSUM_FAULTS, *ZIP_FAULTS, *FORGERIES, "missing", "503", *BREAKS)
# Strike a connection once.
CONNECTION_FAULTS = ("close_1000", "close_1001", "shutdown", "abort", "half_open")
# Strike one frame once.
FRAME_FAULTS = (
    *("malformed", "odd", "duplicate", "stale", "misaligned", "broken_candle"),
    "restated",  # the closing frame again, with other values
    "future_close",  # a closing frame of the candle that has only begun
)
# The exchange's clocks go wrong, by `delay_ms` where that says by how much (may be negative).
TIME_FAULTS = (
    "clock_off",  # REST's serverTime
    "clock_jumps",  # the same, at every other request for the time
    "event_times_off",  # the time at which frames say they were sent
    "event_times_frozen",  # the same for all of them: at_ms
    "close_times_off",  # the close times in frames
    "stream_late",  # every frame comes so much later, with the times it was made at
)
# Candles that open in [at_ms, until_ms) are shown otherwise until `delay_ms` after until_ms.
CANDLE_FAULTS = (
    "hidden",  # by neither channel
    "unfinished",  # REST shows them with half of their trades, as if they had closed
    "rest_restated",  # REST shows other values; for good
)
# A symbol from at_ms to until_ms.
SYMBOL_FAULTS = (
    "removed",  # REST does not know it, and the stream sends nothing
    "omitted",  # exchangeInfo leaves it out
    "refused",  # REST refuses its candles, and nothing else
    "new_rules",  # a quantity step ten times as large
)
# Last from at_ms to until_ms.
LASTING_FAULTS = (
    *("outage", "blackout", "missed_close", "late", "silence"),
    *(*TIME_FAULTS, *CANDLE_FAULTS, *SYMBOL_FAULTS),
)
STREAM_FAULTS = (*CONNECTION_FAULTS, *FRAME_FAULTS, *LASTING_FAULTS)
# Those that a seed may draw.
RANDOM_STREAM_FAULTS = (*CONNECTION_FAULTS, *FRAME_FAULTS, "missed_close")

# After so many random faults the same request is answered, so that every schedule ends.
MOST_PER_REQUEST = 2


@dataclass(frozen=True, slots=True)
class RestFault:
    """A fault of the next matching REST or archive requests.

    Parameters
    ----------
    kind : one of REST_FAULTS or ARCHIVE_FAULTS.
    path : the request's path must contain this text, or end with it where a '$' follows.
    symbol : only requests for this symbol; None strikes all.
    times : how many requests it strikes; None strikes always.
    retry_after_s : the Retry-After of 429 and 418, seconds.
    """

    kind: str
    path: str = f"/{KLINES}"
    symbol: str | None = None
    times: int | None = 1
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        _known(self.kind, REST_FAULTS + ARCHIVE_FAULTS)


@dataclass(frozen=True, slots=True)
class StreamFault:
    """A fault of the stream, by market time.

    Parameters
    ----------
    kind : one of STREAM_FAULTS, of which TIME_FAULTS, CANDLE_FAULTS and SYMBOL_FAULTS are described
        where they are named. `outage` aborts every connection and answers 503 to upgrades;
        `blackout` does so and answers 503 to REST as well; `missed_close` never sends x=true;
        `late` holds a symbol's frames and REST candles back by `delay_ms`; `silence` sends
        nothing at all.
    at_ms : market time from which it strikes (UTC milliseconds).
    until_ms : end of a lasting fault, exclusive; candles that close in [at_ms, until_ms) are
        struck.
    symbol : only this symbol; None strikes all.
    delay_ms : market milliseconds, of `late` and where a kind says so.
    """

    kind: str
    at_ms: int
    until_ms: int | None = None
    symbol: str | None = None
    delay_ms: int = 0

    def __post_init__(self) -> None:
        _known(self.kind, STREAM_FAULTS)
        if self.kind in LASTING_FAULTS and self.until_ms is None:
            raise ValueError(f"stream fault {self.kind!r} lasts: give until_ms")

    def holds(self, now_ms: int, symbol: str | None = None) -> bool:
        """True while a lasting fault strikes (this symbol)."""
        mine = self.symbol is None or symbol is None or self.symbol == symbol
        return mine and self.until_ms is not None and self.at_ms <= now_ms < self.until_ms


@dataclass(frozen=True, slots=True)
class Halt:
    """Market maintenance: candles opening in [start_ms, end_ms) never exist.

    Parameters
    ----------
    start_ms, end_ms : UTC milliseconds.
    symbol : None halts all.
    status : exchangeInfo's status meanwhile: HALT, BREAK, END_OF_DAY or CANCEL_ONLY.
    """

    start_ms: int
    end_ms: int
    symbol: str | None = None
    status: str = "HALT"

    def holds(self, now_ms: int, symbol: str) -> bool:
        """True while this symbol is halted."""
        return self.symbol in (None, symbol) and self.start_ms <= now_ms < self.end_ms


@dataclass(frozen=True, slots=True)
class RandomFaults:
    """Faults drawn from a seed.

    Parameters
    ----------
    seed : one seed is one schedule.
    rest, archive : probability of each kind, per request.
    stream : probability of each kind; connection faults per closing time, frame faults and
        `missed_close` per symbol and candle.
    retry_after_s : the Retry-After of 429 and 418, seconds.
    """

    seed: int
    rest: Mapping[str, float] = field(default_factory=dict)
    archive: Mapping[str, float] = field(default_factory=dict)
    stream: Mapping[str, float] = field(default_factory=dict)
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        for kind in self.rest:
            _known(kind, REST_FAULTS)
        for kind in self.archive:
            _known(kind, ARCHIVE_FAULTS)
        for kind in self.stream:
            _known(kind, RANDOM_STREAM_FAULTS)
        for name in ("rest", "archive", "stream"):
            _require_rates(name, getattr(self, name))


def random_faults(seed: int, rates: Mapping[str, float]) -> RandomFaults:
    """Faults at random by name, each wherever it can strike: REST, archives, stream.

    Raises
    ------
    ValueError
        When no fault has a name, or rates are none.
    """
    places = (REST_FAULTS, ARCHIVE_FAULTS, RANDOM_STREAM_FAULTS)
    for name in rates:
        _known(name, tuple(dict.fromkeys(kind for kinds in places for kind in kinds)))
    rest, archive, stream = (
        {name: rate for name, rate in rates.items() if name in kinds} for kinds in places
    )
    return RandomFaults(seed, rest, archive, stream)


class FaultBook:
    """What strikes next. Lives as long as its exchange; `struck` counts by kind."""

    def __init__(self, random: RandomFaults | None = None) -> None:
        self.random = random or RandomFaults(seed=0)
        self.struck: Counter[str] = Counter()
        self._rest: list[tuple[RestFault, int | None]] = []
        self._stream: list[StreamFault] = []
        self._attempts: Counter[str] = Counter()

    def script(self, *faults: RestFault | StreamFault) -> None:
        """Add scripted faults."""
        for fault in faults:
            if isinstance(fault, RestFault):
                self._rest.append((fault, fault.times))
            else:
                self._stream.append(fault)

    def clear(self) -> None:
        """Forget every scripted and random fault from now on."""
        self._rest.clear()
        self._stream.clear()
        self.random = RandomFaults(seed=self.random.seed)

    def for_request(
        self, path: str, symbol: str | None, text: str, allowed: tuple[str, ...]
    ) -> RestFault | None:
        """The fault of this request among the `allowed` kinds, if any; using it up."""
        fault = self._scripted_rest(path, symbol, allowed) or self._random_rest(text, allowed)
        if fault is not None:
            self.struck[f"rest:{fault.kind}"] += 1
        return fault

    def _scripted_rest(
        self, path: str, symbol: str | None, allowed: tuple[str, ...]
    ) -> RestFault | None:
        for index, (fault, left) in enumerate(self._rest):
            mine = fault.path in f"{path}$" and fault.symbol in (None, symbol)
            if mine and fault.kind in allowed:
                if left is not None and left <= 1:
                    del self._rest[index]
                else:
                    self._rest[index] = (fault, None if left is None else left - 1)
                return fault
        return None

    def _random_rest(self, text: str, allowed: tuple[str, ...]) -> RestFault | None:
        source = self.random.archive if text.startswith(ARCHIVE_ROOT) else self.random.rest
        rates = {kind: rate for kind, rate in source.items() if kind in allowed}
        if not rates:
            return None
        self._attempts[text] += 1
        attempt = self._attempts[text]
        if attempt > MOST_PER_REQUEST:
            self._attempts[text] = 0
            return None
        kind = self._draw(rates, f"{text}#{attempt}")
        return RestFault(kind, retry_after_s=self.random.retry_after_s) if kind else None

    def take_connections(self, now_ms: int) -> list[StreamFault]:
        """Scripted connection faults that are due, used up."""
        return self._take(CONNECTION_FAULTS, now_ms, None)

    def take_frames(self, symbol: str, now_ms: int) -> list[StreamFault]:
        """Scripted frame faults that are due for this symbol, used up."""
        return self._take(FRAME_FAULTS, now_ms, symbol)

    def _take(self, kinds: tuple[str, ...], now_ms: int, symbol: str | None) -> list[StreamFault]:
        due = [
            fault
            for fault in self._stream
            if fault.kind in kinds and fault.at_ms <= now_ms and fault.symbol in (None, symbol)
        ]
        self._stream = [fault for fault in self._stream if fault not in due]
        return due

    def lasting(self, kind: str, now_ms: int, symbol: str | None = None) -> StreamFault | None:
        """The lasting fault of this kind that strikes now, if any."""
        for fault in self._stream:
            if fault.kind == kind and fault.holds(now_ms, symbol):
                return fault
        return None

    def shift_ms(self, kind: str, now_ms: int, symbol: str | None = None) -> int:
        """Market milliseconds by which a lasting fault of this kind shifts times now; 0 without.

        Counts a strike each time.
        """
        fault = self.lasting(kind, now_ms, symbol)
        if fault is None:
            return 0
        self.struck[f"stream:{kind}"] += 1
        return fault.delay_ms

    def on_candle(self, kind: str, open_ms: int, now_ms: int, symbol: str) -> bool:
        """Whether a candle is shown otherwise now, by a fault of this kind; counts the strikes."""
        for fault in self._stream:
            mine = fault.kind == kind and fault.holds(open_ms, symbol)
            # `hidden` and `unfinished` pass; what was restated stays so.
            over = kind != "rest_restated" and now_ms >= (fault.until_ms or 0) + fault.delay_ms
            if mine and not over:
                self.struck[f"stream:{kind}"] += 1
                return True
        return False

    def random_stream(self, kinds: tuple[str, ...], key: str) -> str | None:
        """The random stream fault among `kinds` drawn for `key`, if any."""
        rates = {kind: self.random.stream[kind] for kind in kinds if kind in self.random.stream}
        return self._draw(rates, key) if rates else None

    def _draw(self, rates: Mapping[str, float], key: str) -> str | None:
        """One kind, each with its probability, or None; a function of seed and key alone."""
        digest = hashlib.blake2b(f"{self.random.seed}/{key}".encode(), digest_size=8).digest()
        left = int.from_bytes(digest, "big") / 2**64
        for kind, rate in rates.items():
            if left < rate:
                return kind
            left -= rate
        return None


def _known(kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise ValueError(f"unknown fault {kind!r}: expected one of {', '.join(kinds)}")


def _require_rates(name: str, rates: Mapping[str, float]) -> None:
    """Probabilities of kinds of which one strikes at most. Raises ValueError."""
    wrong = {kind: rate for kind, rate in rates.items() if not 0 <= rate <= 1}
    if wrong:
        raise ValueError(f"rates of {name} faults are probabilities, 0 to 1; found {wrong}")
