"""Pages from templates: every text escaped, every number in one form."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from cppncripto_strategy.desk import files
from cppncripto_strategy.desk.schema import Instant

UNKNOWN = "–"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


@cache
def environment() -> Environment:
    """The desk's templates: everything escaped, an unknown name is an error."""
    found = Environment(
        loader=PackageLoader("cppncripto_strategy.desk"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        percent=percent, share=share, fall=fall, number=number, moment=moment, age=age
    )
    found.filters["milliseconds"] = milliseconds
    found.globals["static"] = files.address
    return found


def render(template: str, **values: Any) -> str:
    """A template of the desk, filled in."""
    return environment().get_template(template).render(values)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page as a response."""
    return HTMLResponse(render(template, **values), status)


def percent(value: float | None, digits: int = 2) -> str:
    """0.0123 as "+1.23 %"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{100 * value:+.{digits}f} %".replace("-", "−")


def share(value: float | None) -> str:
    """0.0123 as "1.23 %": of what has no direction."""
    return percent(value).removeprefix("+")


def fall(value: float | None) -> str:
    """A drawdown of 0.0123 as "−1.23 %"."""
    return "0.00 %" if value == 0 else percent(None if value is None else -value)


def number(value: float | None, digits: int = 2) -> str:
    """12345.678 as "12,345.68"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.{digits}f}".replace("-", "−")


def milliseconds(seconds: float | None) -> str:
    """0.0042 as "4.2 ms"."""
    return UNKNOWN if seconds is None else f"{number(1_000 * seconds, 1)} ms"


def moment(value: Instant | None, seconds: bool = False) -> str:
    """An instant as "2024-05-20 12:05" (UTC)."""
    if value is None:
        return UNKNOWN
    return value.iso[: 19 if seconds else 16].replace("T", " ")


def age(seconds: float | None) -> str:
    """90 as "1.5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
