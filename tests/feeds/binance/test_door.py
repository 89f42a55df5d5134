"""One door for the exchange's wire: nothing outside `feeds.binance` spells a field of Binance."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = ("cppncripto_strategy", "feeds", "indicators", "models")
# The exchange's names that are no words of the field: parameters, answers, filters, headers, paths.
NAMES = re.compile(
    r"startTime|endTime|openTime|closeTime|serverTime|serverShutdown|rateLimit|intervalNum"
    r"|filterType|stepSize|tickSize|minQty|maxQty|minPrice|maxPrice|[mM]inNotional|maxNotional"
    r"|applyToMarket|baseAsset|quoteAsset|exchangeFilters|exchangeInfo|symbols\.filters"
    r"|LOT_SIZE|PRICE_FILTER|NOTIONAL|REQUEST_WEIGHT|TRADING|SUBSCRI|X-MBX-|Retry-After"
    r"|@kline|klines|/api/v3|data/spot|\.CHECKSUM|streams=|\"k\":"
)
# Letters of a kline event, for the modules that handle messages. t, s, c and i are left out,
# because a session's journal has them too.
LETTERS = frozenset("kxeETfLohlvnqVQB")
HANDLERS = ("feeds/live/", "feeds/loopback/", "cppncripto_strategy/paper/")
# The status of a symbol that takes orders is part of what filters are.
HOMES = {("feeds/filters.py", "TRADING")}
# A row of the exchange: as many of its names in one literal, in its order, are its layout.
ROW = ("open_time", "open", "high", "low", "close", "volume", "close_time")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(path, syntax tree) of every module of the package but those of the door."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            linked = folder == FOLDERS[0] and name.split("/")[1] in FOLDERS
            if not linked and not name.startswith("feeds/binance/"):
                yield name, ast.parse(path.read_text("utf-8"))


def spelled(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string of the code; docstrings speak to people and are left out."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def keys(tree: ast.Module) -> Iterator[tuple[int, object]]:
    """(line, constant) of every key that is read: `x["k"]`, `x.get("k")`, `{"k": ...}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            nodes: list[ast.expr | None] = [node.slice]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get":
            nodes = list(node.args[:1])
        elif isinstance(node, ast.Dict):
            nodes = list(node.keys)
        else:
            continue
        yield from ((node.lineno, n.value) for n in nodes if isinstance(n, ast.Constant))


def literals(tree: ast.Module) -> Iterator[tuple[int, tuple[object, ...]]]:
    """(line, constants) of every tuple and list."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List):
            yield node.lineno, tuple(getattr(n, "value", None) for n in node.elts)


def test_no_other_module_spells_a_name_of_the_exchange():
    """A field renamed by the exchange that has to be hunted through broker, stream and commands."""
    found = [
        f"{name}:{line}: {text!r}"
        for name, tree in modules()
        for line, text in spelled(tree)
        if NAMES.search(text) and (name, text) not in HOMES
    ]
    assert not found


def test_no_message_handler_reads_the_letters_of_a_kline_event():
    """A stream and a loopback exchange that each know what "x" means, one of them wrongly."""
    found = [
        f"{name}:{line}: {key!r}"
        for name, tree in modules()
        if name.startswith(HANDLERS)
        for line, key in keys(tree)
        if key in LETTERS
    ]
    assert not found


def test_no_other_module_knows_the_order_of_a_row():
    """Archives parsed by one order of columns and written by another."""
    found = [
        f"{name}:{line}"
        for name, tree in modules()
        for line, values in literals(tree)
        if values[: len(ROW)] == ROW
    ]
    assert not found
