"""Numbers and settings as text: what a table cell, a card or the terminal shows.

A number that is not defined is a dash, never "nan" or "None". Text stays plain ASCII signs, so that
it can be copied into a spreadsheet; pages typeset the minus (`pages.minus`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"


def percent(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A share as per cent: 0.1234 is "12.34 %". A dash where it is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:{'+' if sign else ''},.{digits}f} %"


def signed(value: float | None) -> str:
    """A return as per cent with its sign: 0.1234 is "+12.34 %"."""
    return percent(value, sign=True)


def number(value: float | None, digits: int = 2) -> str:
    """A number with thousands separated. A dash where it is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.{digits}f}"


def whole(value: float | None) -> str:
    """A count with thousands separated. A dash where it is None."""
    return MISSING if value is None else f"{int(value):,}"


def interval(estimate: Mapping[str, Any] | None, scale: float = 100, unit: str = " %") -> str:
    """An estimate (value, low, high) as "61.2 % [58.0, 64.1]"; without brackets where it has none.

    Parameters
    ----------
    scale : what value, low and high are multiplied by; 100 shows a share as per cent.
    unit : written after the value.
    """
    if estimate is None or estimate["value"] is None:
        return MISSING
    text = f"{scale * estimate['value']:.1f}{unit}"
    brackets = bounds(estimate, scale)
    return text if brackets == MISSING else f"{text} {brackets}"


def bounds(estimate: Mapping[str, Any] | None, scale: float = 100) -> str:
    """The interval of an estimate alone, as "[58.0, 64.1]". A dash where it has none."""
    if estimate is None or estimate["value"] is None or estimate["low"] is None:
        return MISSING
    return f"[{scale * estimate['low']:.1f}, {scale * estimate['high']:.1f}]"


def anything(value: Any, name: str = "") -> str:
    """A value of a settings or manifest table; ratios and hit ratios become per cent.

    Parameters
    ----------
    name : the setting's name, which says what a number is.
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        share = name.endswith("ratio") or name.startswith("hit ")
        return percent(value) if share else f"{value:,.6g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 and not name.endswith("seed") else str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(anything(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {anything(item)}" for key, item in value.items())
    return str(value)


def words(key: str) -> str:
    """A key as a label: "bundle_hashes" is "Bundle hashes"."""
    text = key.replace("_", " ")
    return text[:1].upper() + text[1:]


def filters_line(symbol: str, rules: Mapping[str, Any]) -> str:
    """A symbol's exchange rules and their origin in one line (`KnownFilters.to_plain`)."""
    names = ("quantity_step", "step"), ("price_tick", "tick"), ("min_notional", "minimum notional")
    said = ", ".join(f"{label} {rules[name] or 'none'}" for name, label in names)
    stated = f", stated {rules['stated']}" if rules["stated"] else ""
    return f"{symbol}: {said} ({rules['origin']}{stated})"


def settings_rows(settings: Mapping[str, Any]) -> list[list[str]]:
    """Rows (label, value) of a table of settings."""
    return [[words(key), anything(value, key)] for key, value in settings.items()]
