"""Binance's streams: kline events, stream names and commands, read and written side by side.

Left out: trades, order books, account streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cppncripto_strategy.feeds.binance.answers import Json, compact
from cppncripto_strategy.feeds.binance.klines import Kline, read_number
from cppncripto_strategy.feeds.candles import COLUMNS

# One stream of a connection, or several wrapped with their names.
SINGLE_PATH, COMBINED_PATH = "/ws", "/stream"
STREAMS_PER_CONNECTION = 1024
# Their names stand in the address; so many keep it well below the 8 kB that servers take.
STREAMS_PER_ADDRESS = 200
COMMANDS_PER_SECOND = 5
# Messages that are JSON and no candle; a reader must outlive them.
ODD_FRAMES = ("5", '{"result":null,"id":1}', "null", "[]", '"kline"', "{}", '{"e":"kline","k":7}')
_KLINE, _SHUTDOWN, _ERROR = "kline", "serverShutdown", "error"
# A candle's column -> its letter in a kline event.
_LETTERS = {
    **{"open_time": "t", "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"},
    **{"quote_volume": "q", "trades": "n", "taker_buy_volume": "V", "taker_buy_quote_volume": "Q"},
}


@dataclass(frozen=True, slots=True)
class KlineEvent:
    """One kline event of a stream.

    Parameters
    ----------
    symbol, interval : as sent.
    open_ms, close_ms : open time of its candle and its last millisecond, UTC milliseconds; close_ms
        is None where it is not sent as a whole number.
    event_ms : the exchange's time of the event; None where it is not sent as a whole number.
    closed : whether the candle is final.
    row : the candle in the order of `candles.COLUMNS`; None when a number is missing or unreadable.
    first_trade, last_trade : ids of its first and last trade; None where it states none.
    """

    symbol: str
    interval: str
    open_ms: int
    close_ms: int | None
    event_ms: int | None
    closed: bool
    row: tuple[float, ...] | None
    first_trade: int | None
    last_trade: int | None


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The connection is over, and why."""

    reason: str


def kline_frame(kline: Kline, symbol: str, interval: str, event_ms: int, closed: bool) -> Json:
    """The stream's kline event.

    {"e":"kline","E":1757523280021,"s":"BTCUSDT","k":{"t":1757523000000,"T":1757523299999,
     "s":"BTCUSDT","i":"5m","f":5225377132,"L":5225383094,"o":"113647.98000000",
     "c":"113670.12000000","h":"113708.45000000","l":"113627.74000000","v":"46.64096000",
     "n":5963,"x":false,"q":"5302412.42715770","V":"14.72666000","Q":"1674287.91322410",
     "B":"0"}}
    """
    first = kline.first_trade_id if kline.trades else -1
    last = first + kline.trades - 1 if kline.trades else -1
    head = {"t": kline.open_time, "T": kline.close_time, "s": symbol, "i": interval}
    values = {letter: getattr(kline, name) for name, letter in _LETTERS.items()}
    body = {letter: values[letter] for letter in ("o", "c", "h", "l", "v", "n")}
    tail = {letter: values[letter] for letter in ("q", "V", "Q")}
    candle = {**head, "f": first, "L": last, **body, "x": closed, **tail, "B": "0"}
    return {"e": _KLINE, "E": event_ms, "s": symbol, "k": candle}


def shutdown_frame(event_ms: int) -> Json:
    """The announcement that this connection will end."""
    return {"e": _SHUTDOWN, "E": event_ms}


def read_frame(frame: Any) -> KlineEvent | StreamEnd | None:
    """What a message says, wrapped with its stream's name or not; None when it says nothing known.

    The python-binance socket puts its own failures among the messages, as events of kind "error".
    """
    event = frame.get("data", frame) if isinstance(frame, dict) else None
    if not isinstance(event, dict):
        return None
    kind = event.get("e")
    if kind == _ERROR:
        return StreamEnd(str(event.get("type")))
    if kind == _SHUTDOWN:
        return StreamEnd("the exchange announced a shutdown")
    kline = event.get("k")
    if kind != _KLINE or not isinstance(kline, dict) or type(kline.get("t")) is not int:
        return None
    return KlineEvent(
        symbol=str(kline.get("s")),
        interval=str(kline.get("i")),
        open_ms=kline["t"],
        close_ms=_whole(kline.get("T")),
        event_ms=_whole(event.get("E")),
        closed=kline.get("x") is True,
        row=_row(kline),
        first_trade=_trade_id(kline.get("f")),
        last_trade=_trade_id(kline.get("L")),
    )


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _trade_id(value: Any) -> int | None:
    """The exchange sends -1 for the ids of a candle without trades."""
    return value if type(value) is int and value >= 0 else None


def _row(kline: Json) -> tuple[float, ...] | None:
    try:
        return (kline["t"], *(read_number(kline[_LETTERS[name]]) for name in COLUMNS[1:]))
    except (KeyError, ValueError):
        return None


def stream_name(symbol: str, interval: str) -> str:
    """The stream of a symbol's candles: 'btcusdt@kline_5m'."""
    return f"{symbol.lower()}@kline_{interval}"


def combined_path(symbols: Sequence[str], interval: str) -> tuple[str, str]:
    """(prefix, path) below the stream address for one connection with all of these candles."""
    names = "/".join(stream_name(symbol, interval) for symbol in symbols)
    return f"{COMBINED_PATH.removeprefix('/')}?", f"streams={names}"


def read_combined(query: Any) -> str:
    """The stream names that a combined connection asks for in its query."""
    return str(query.get("streams", ""))


def wrapped(stream: str, text: str) -> str:
    """An event's text as a combined connection gets it."""
    return f'{{"stream":"{stream}","data":{text}}}'


def obey(read: Callable[[], Any], streams: set[str]) -> str:
    """Carry out SUBSCRIBE, UNSUBSCRIBE or LIST_SUBSCRIPTIONS on `streams`; the answer's text.

    Parameters
    ----------
    read : gives the command; a command that cannot be read is answered with an error.
    streams : the connection's subscriptions, changed in place.
    """
    try:
        command = read()
        method, names = command["method"], list(command.get("params") or [])
    except (ValueError, KeyError, TypeError, AttributeError):
        return compact({"error": {"code": 2, "msg": "Invalid request"}, "id": None})
    result = None
    if method == "SUBSCRIBE":
        streams.update(names)
    elif method == "UNSUBSCRIBE":
        streams.difference_update(names)
    elif method == "LIST_SUBSCRIPTIONS":
        result = sorted(streams)
    else:
        return compact({"error": {"code": 2, "msg": "unknown method"}, "id": None})
    return compact({"result": result, "id": command.get("id")})
