"""Binance's small answers: the time, errors, and how long to wait; read and written side by side.

Left out: what needs a key. JSON goes out without blanks, as the exchange sends it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard

from cppncripto_strategy.feeds.candles import EARLIEST_MS, LATEST_MS

Json = dict[str, Any]

UNKNOWN_SYMBOL = -1121
_UNKNOWN_INTERVAL = -1120
_TOO_MUCH = -1003
USED_WEIGHT = "X-MBX-USED-WEIGHT-1M"
_USED_WEIGHT_OLD = "X-MBX-USED-WEIGHT"
RETRY_AFTER = "Retry-After"
# The exchange bans for two minutes to three days.
LONGEST_BAN_S = 3 * 86_400.0


def compact(value: object) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def server_time(server_ms: int) -> Json:
    """The answer of `GET /api/v3/time`: {"serverTime":1757523280021}."""
    return {"serverTime": server_ms}


def read_server_time(answer: Any) -> int:
    """UTC milliseconds of a time answer.

    Raises
    ------
    KeyError, ValueError
        When it holds no time; an empty body arrives as {}, hence as a KeyError.
    """
    server_ms = answer["serverTime"]
    if not is_time(server_ms):
        raise ValueError(f"serverTime is {str(server_ms)[:80]!r}, no time of this age in ms")
    return int(server_ms)


def is_time(value: object) -> TypeGuard[int]:
    """True for a whole number that is UTC milliseconds of an age with exchanges."""
    return type(value) is int and EARLIEST_MS <= value < LATEST_MS


def weight_headers(used: int) -> dict[str, str]:
    """The headers that say how much weight this address has used in the present window."""
    return {_USED_WEIGHT_OLD: str(used), USED_WEIGHT: str(used)}


def read_used_weight(headers: Mapping[str, str]) -> int | None:
    """The weight used in the present window, by the exchange's count; None where it is not said."""
    used = headers.get(USED_WEIGHT, "")
    return int(used) if re.fullmatch(r"[0-9]{1,9}", used) else None


def error_body(code: int, message: str) -> Json:
    """The exchange's error form: {"code": -1121, "msg": "Invalid symbol."}."""
    return {"code": code, "msg": message}


INVALID_SYMBOL = error_body(UNKNOWN_SYMBOL, "Invalid symbol.")
INVALID_INTERVAL = error_body(_UNKNOWN_INTERVAL, "Invalid interval.")
UNKNOWN_ERROR = error_body(-1000, "An unknown error occurred while processing the request.")


def mandatory_missing(name: str) -> Json:
    """A parameter that must be sent was not."""
    return error_body(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def illegal_parameter(name: str) -> Json:
    """A whole number was expected and something else came."""
    return error_body(
        -1100,
        f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.",
    )


def too_many_requests(limit: int) -> Json:
    """The body of status 429."""
    return error_body(
        _TOO_MUCH,
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."
        " Please use the websocket for live updates to avoid polling the API.",
    )


def banned(until_ms: int) -> Json:
    """The body of status 418."""
    return error_body(
        _TOO_MUCH,
        f"Way too much request weight used; IP banned until {until_ms}."
        " Please use the websocket for live updates to avoid bans.",
    )


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says how long to wait, in whole seconds, rounded up."""
    return {RETRY_AFTER: str(int(-(-seconds // 1)))}


def read_pause_s(headers: Mapping[str, str], message: str, now_ms: int) -> float | None:
    """Seconds that a 429 or 418 says to wait: Retry-After, else the time in its text, else None.

    Seconds or a date count as Retry-After; what is negative or longer than the longest ban says
    nothing.
    """
    header = str(headers.get(RETRY_AFTER, "")).strip()
    until = re.search(r"until (\d{13})(?!\d)", message)
    said: float | None = None
    if re.fullmatch(r"\d+(\.\d+)?", header):
        said = float(header)
    elif header.endswith("GMT"):
        with suppress(ValueError, OverflowError):
            said = parsedate_to_datetime(header).timestamp() - now_ms / 1000
    elif until is not None:
        said = max(0.0, (int(until[1]) - now_ms) / 1000)
    return said if said is not None and 0 <= said <= LONGEST_BAN_S else None
