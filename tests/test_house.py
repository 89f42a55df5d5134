"""The house: imports run one way between its rooms, as docs/design.md draws them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = "cppncripto_strategy"
ROOT = Path(__file__).parents[1]
FOLDERS = ("feeds", "indicators", "models")
# The folders inside these are rooms, and so are the files beside them: some are leaves.
FLOORS = {"feeds"}


def sources() -> Iterator[tuple[str, Path]]:
    """(module below the package, file) of every source, those behind the links once."""
    for base, prefix in ((ROOT / PACKAGE, ""), *((ROOT / name, name) for name in FOLDERS)):
        for path in sorted(base.rglob("*.py")):
            inner = path.relative_to(base)
            linked = not prefix and (base / inner.parts[0]).is_symlink()
            if path.stem != "__init__" and not linked:
                parts = (*((prefix,) if prefix else ()), *inner.with_suffix("").parts)
                yield ".".join(parts), path


def room(module: str) -> str:
    """A folder is a room; a file at the top, or directly on a floor, is one by itself."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] in FLOORS else 1])


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in it, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (n.removeprefix(f"{PACKAGE}.") for n in names if n.startswith(f"{PACKAGE}."))


MODULES = dict(sources())
ARROWS = {
    (module, target)
    for module, path in MODULES.items()
    for target in imported(path)
    if target in MODULES
}


def test_rooms_import_one_way():
    """A circle: two rooms that can only be understood, and changed, together."""
    graph: dict[str, set[str]] = {}
    for module, target in ARROWS:
        if room(module) != room(target):
            graph.setdefault(room(module), set()).add(room(target))
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle
    assert len(order) > 20
    assert order.index("models") < order.index("indicators") < order.index("strategy")


def test_feeds_import_one_way():
    """The exchange's wire that needs a store, or live candles that need history on disk."""
    below = {
        "feeds.candles": set[str](),
        "feeds.filters": set[str](),
        "feeds.binance": {"feeds.candles", "feeds.filters"},
        "feeds.history": {"feeds.candles", "feeds.binance"},
        "feeds.live": {"feeds.candles", "feeds.filters", "feeds.binance"},
        "feeds.loopback": {"feeds.candles", "feeds.filters", "feeds.binance"},
    }
    leaves = {"errors", "atomic", "arrays", "progress", "feeds.clock"}
    for module, target in ARROWS:
        allowed = below.get(room(module))
        if allowed is not None and room(target) != room(module):
            assert room(target) in allowed | leaves, f"{module} imports {target}"


def test_files_import_one_way():
    """A circle inside a room."""
    graph: dict[str, set[str]] = {}
    for module, target in ARROWS:
        graph.setdefault(module, set()).add(target)
    TopologicalSorter(graph).prepare()


def test_leaves_know_nobody_above_them():
    """A network that needs Backtrader, or candles that need a network."""
    allowed = {"errors", "atomic", "arrays", "codehash", "progress", "registry"}
    for module, target in ARROWS:
        if module.startswith("models."):
            assert target.split(".")[0] in {"models", *allowed} or target == "feeds.clock", module
        if module in ("feeds.candles", "feeds.history.store"):
            assert target in {"feeds.candles", "feeds.clock", *allowed}, module
        if module in allowed:
            assert (module, target) == ("registry", "errors")
        assert target != "cli", module
