"""For the record: orders not filled, exchange rules, gaps, active bundles, settings and hashes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.reports.blocks import Block, Code, Fold, Section, Table
from cppncripto_strategy.reports.values import MISSING, number, settings_rows, whole
from cppncripto_strategy.results import RunResult, to_toml

MAX_TABLE_ROWS = 60
_BUNDLE_COLUMNS = (
    ("hash", "Bundle"),
    ("trained_until_ms", "Trained until (UTC)"),
    ("valid_from_ms", "Active from (UTC)"),
    ("valid_until_ms", "Active until (UTC)"),
    ("validation_loss", "Validation loss"),
    ("reason", "Reason"),
)

_FILTER_COLUMNS = (
    ("symbol", "Symbol"),
    ("quantity_step", "Quantity step"),
    ("price_tick", "Price tick"),
    ("max_quantity", "Maximum quantity"),
    ("min_notional", "Minimum notional"),
    ("stated", "Stated"),
    ("origin", "From"),
)


def orders(result: RunResult) -> Section:
    """Orders that were not filled, counted by status, order and reason."""
    other = result.fills[result.fills["status"] != "filled"]
    if len(other) == 0:
        return Section("Orders not filled", note="Every order was filled.")
    keys = list(zip(*(other[c].astype(str) for c in ("status", "reason", "detail")), strict=True))
    ordered = Counter(keys).most_common(MAX_TABLE_ROWS)
    rows = [[*key, whole(count)] for key, count in ordered]
    return Section(
        "Orders not filled", Table(["Status", "Order", "Why", "Orders"], rows, text=[1, 2])
    )


def filters(result: RunResult) -> Section | None:
    """The exchange's rules that each symbol traded by; None where none are recorded."""
    if not result.filters:
        return None
    rows = [
        [str(rules["symbol"]), *(str(rules[key] or "none") for key, _ in _FILTER_COLUMNS[1:])]
        for rules in result.filters
    ]
    return Section(
        "Exchange rules",
        Table([head for _, head in _FILTER_COLUMNS], rows, text=[len(_FILTER_COLUMNS) - 1]),
        note="Orders are fitted to them: quantities to the step, prices to the tick.",
    )


def gaps(result: RunResult) -> Section:
    """Missing candles, stretch by stretch."""
    if not result.gaps:
        none = "No candle is missing in the span that was traded or trained on."
        return Section("Gaps", note=none)
    rows = [
        [
            str(gap["symbol"]),
            ms_to_utc(gap["start_ms"]),
            ms_to_utc(gap["end_ms"]),
            whole(gap["candles"]),
        ]
        for gap in result.gaps
    ]
    head = ["Symbol", "From (UTC)", "To (UTC)", "Candles missing"]
    content: list[Block] = [Table(head, rows[:MAX_TABLE_ROWS])]
    rest = rows[MAX_TABLE_ROWS:]
    if rest:
        content.append(Fold(f"{len(rest)} more", Table(head, rest)))
    return Section(
        "Gaps",
        content,
        note="Never filled in: features see them as missing, and no order crosses one.",
    )


def exchange(result: RunResult) -> Section | None:
    """What the exchange did besides candles while a paper session ran; None in a backtest."""
    session = result.metrics.get("session")
    if session is None:
        return None
    rows = [[ms_to_utc(int(row["at_ms"])), str(row["what"])] for row in session["exchange"]]
    if not rows:
        return Section("What the exchange did", note="Nothing besides candles was heard of it.")
    head = ["Heard (UTC)", "What"]
    content: list[Block] = [Table(head, rows[-MAX_TABLE_ROWS:], text=[1])]
    if len(rows) > MAX_TABLE_ROWS:
        content.append(Fold(f"{len(rows) - MAX_TABLE_ROWS} earlier",
                            Table(head, rows[:-MAX_TABLE_ROWS], text=[1])))  # fmt: skip
    return Section(
        "What the exchange did",
        content,
        note="Stopped symbols, changed rules, candles that came late or again. What had been"
        " decided by then stays as it was.",
    )


def crosscheck(result: RunResult) -> Section | None:
    """Each day of a paper session by the second engine; None where no day was checked."""
    days = (result.metrics.get("session") or {}).get("crosschecks") or []
    checked = [day for day in days if day["checked"]]
    if not checked:
        return None
    rows = [
        [
            day["day"],
            whole(day["orders"]),
            whole(day["filled"]),
            number(day["fees"]),
            number(day["equity"]),
            day["first_difference"] or "none",
        ]
        for day in checked[-MAX_TABLE_ROWS:]
    ]
    head = ["Day", "Orders", "Filled", "Fees", "Equity at its end", "First difference"]
    return Section(
        "Days by a second engine",
        Table(head, rows, text=[5]),
        note="Each day's orders derived again from its scores, candles and rules, and executed by"
        " vectorbt. Figures are vectorbt's; a difference from the session's own is named.",
    )


def bundles(result: RunResult) -> Section | None:
    """Which networks were active when; None where none is recorded."""
    if not result.bundles:
        return None
    columns = [(k, head) for k, head in _BUNDLE_COLUMNS if any(k in b for b in result.bundles)]
    rows = [[_bundle_cell(key, bundle.get(key)) for key, _ in columns] for bundle in result.bundles]
    text = [place for place, (key, _) in enumerate(columns) if key == "reason"]
    return Section(
        "Active bundles",
        Table([head for _, head in columns], rows, text=text),
        note="Each model scores only candles after the last one it was trained on.",
    )


def _bundle_cell(key: str, value: Any) -> str:
    if value is None:
        return MISSING
    if key.endswith("_ms"):
        return ms_to_utc(int(value))
    if key == "hash":
        return str(value)[:12]
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def settings(result: RunResult) -> Section:
    """The manifest, the speed, and the resolved recipe."""
    plain = {k: v for k, v in result.manifest.items() if not isinstance(v, (dict, list))}
    nested = {k: v for k, v in result.manifest.items() if isinstance(v, (dict, list)) and v}
    speed = result.metrics.get("speed") or {}
    rows = [row for part in (plain, speed, nested) for row in settings_rows(part)]
    return Section(
        "Settings and hashes",
        [
            Table(["", ""], rows, text=[1]),
            Fold("The resolved recipe", Code(to_toml(result.recipe))),
        ],
    )
