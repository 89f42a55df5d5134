"""The house: rooms that import one way, as docs/design.md draws them; files one can read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

PACKAGE = "cppncripto_strategy"
ROOT = Path(__file__).parents[1]
FOLDERS = ("feeds", "indicators", "models")
# The folders inside these are rooms, and so are the files beside them: some are leaves.
FLOORS = {"feeds"}

# Rooms from the ground up: a room imports only from storeys below its own, so rooms of one storey
# do not know each other.
LEAVES = {"errors", "arrays", "memory", "progress", "codehash", "stopping", "system"}
STOREYS = (
    LEAVES,
    {"atomic", "feeds.clock", "foreign", "lines", "registry", "runonce", "spreading"},
    {"feeds.candles", "feeds.filters", "ledger", "locks", "order_objects", "paths", "plugins"}
    | {"results", "runlog"},
    {"evaluation", "feeds.binance", "feeds.planted", "feeds.replay", "models", "spot_account"},
    {"broker", "evidence_meter", "feeds.history", "feeds.live", "feeds.loopback"}
    | {"feeds.planted_hits", "indicators", "recipe_sections", "sizing", "symbol_state"}
    | {"tables"},
    {"fast_loop", "recipe_learning", "recipe_search", "recipe_strategy"},
    {"recipe"},
    {"symbol_rules"},
    {"installation", "new_recipe"}
    | {"analyzers", "embeddings", "forecasts", "judgement", "market", "recipe_reference", "reports"}
    | {"strategy", "testing"},
    {"class_labels", "preflight", "replay", "timelines"},
    {"crosscheck", "outcome"},
    {"backtest", "checks", "evolution", "experiments", "paper", "tuning"},
    {"desk"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
# Rooms that know only some of what lies below them, and the leaves.
ONLY: dict[str, set[str]] = {
    # Readers alone: nothing that orders, trades or runs a backtest can be reached from a page.
    "desk": {"atomic", "embeddings", "feeds.candles", "feeds.clock", "feeds.history", "feeds.live"}
    | {"forecasts", "foreign", "locks", "models", "paper", "paths", "recipe_sections", "reports"}
    | {"results"},
    "models": {"atomic", "feeds.clock", "foreign", "locks", "plugins", "registry", "spreading"},
    "indicators": {"feeds.clock", "models"},
    "feeds.candles": {"feeds.clock"},
    "feeds.filters": {"feeds.clock"},
    "feeds.binance": {"atomic", "feeds.clock", "feeds.candles", "feeds.filters", "foreign"},
    "feeds.history": {"atomic", "feeds.clock", "feeds.candles", "feeds.filters", "feeds.binance"}
    | {"foreign", "locks"},
    "feeds.live": {"atomic", "feeds.clock", "feeds.candles", "feeds.filters", "feeds.binance"},
    "feeds.loopback": {"atomic", "feeds.clock", "feeds.candles", "feeds.filters", "feeds.binance"},
}

FILE_LINES = 500
FUNCTION_LINES = 60
MEDIAN_LINES = 10


def sources() -> Iterator[tuple[str, Path]]:
    """(module below the package, file) of every source, those behind the links once."""
    for base, prefix in ((ROOT / PACKAGE, ()), *((ROOT / name, (name,)) for name in FOLDERS)):
        for path in sorted(base.rglob("*.py")):
            inner = path.relative_to(base)
            if prefix or not (base / inner.parts[0]).is_symlink():
                name = inner.parent if path.stem == "__init__" else inner.with_suffix("")
                yield ".".join((*prefix, *name.parts)), path


MODULES = dict(sources())
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in MODULES.items()}


def room(module: str, floors: set[str] = FLOORS) -> str:
    """A folder is a room; a file at the top, or directly on a floor, is one by itself."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] in floors else 1])


def imported(module: str) -> Iterator[tuple[str, str]]:
    """(module, name taken from it) of the package that a module imports, wherever in it."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write the whole name of what is imported"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in (n.removeprefix(f"{PACKAGE}.") for n in names if n.startswith(f"{PACKAGE}.")):
            above, _, last = name.rpartition(".")
            yield (name, "") if name in MODULES else (above, last)


# The package's own __init__ opens its doors on every floor, to users alone: it is no room.
IMPORTS = {
    (module, target, name) for module in MODULES if module for target, name in imported(module)
}
ARROWS = {(module, target) for module, target, _ in IMPORTS if target}


def crossings(floors: set[str] = FLOORS) -> Iterator[tuple[str, str, str]]:
    """(room, room it imports, how) of every arrow between rooms."""
    for module, target in sorted(ARROWS):
        above, below = room(module, floors), room(target, floors)
        if above != below:
            yield above, below, f"{module} imports {target}"


@pytest.mark.parametrize("floors", [FLOORS, FLOORS | {"models"}], ids=["rooms", "models' folders"])
def test_rooms_import_one_way(floors):
    """A circle: two rooms that can only be understood, and changed, together."""
    graph: dict[str, set[str]] = {}
    for above, below, _ in crossings(floors):
        graph.setdefault(above, set()).add(below)
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle
    assert len(order) > 20


def test_files_import_one_way():
    """A circle inside a room."""
    graph: dict[str, set[str]] = {}
    for module, target in ARROWS:
        graph.setdefault(module, set()).add(target)
    TopologicalSorter(graph).prepare()


def test_every_room_has_its_storey():
    """A new room that nobody placed: import it from anywhere, and the next circle has begun."""
    placed = [room for storey in STOREYS for room in storey]
    assert len(placed) == len(set(placed))
    assert {room(module) for module in MODULES if module not in ("", *FLOORS)} == set(placed)


def test_no_arrow_points_upwards():
    """Candles that need a network, a backtest that needs the command line."""
    height = {room: number for number, storey in enumerate(STOREYS) for room in storey}
    wrong = [how for above, below, how in crossings() if height[above] <= height[below]]
    assert not wrong


def test_rooms_know_only_what_they_need():
    """A network that needs Backtrader, live candles that need history on disk."""
    wrong = [
        how
        for above, below, how in crossings()
        if above in ONLY and below not in ONLY[above] | LEAVES
    ]
    assert not wrong


def test_private_names_stay_at_home():
    """`_helper` renamed in its own file, and a file in another room that breaks."""
    taken = {
        (module, f"{target}.{name}".rstrip("."))
        for module, target, name in IMPORTS
        if is_private(name) or not may_see(module, target)
    }
    assert not taken


def test_private_names_are_not_reached_through_their_module():
    """`helpers._helper`: the same import with a dot in it."""
    for module, tree in TREES.items():
        nodes = list(ast.walk(tree))
        froms = (n for n in nodes if isinstance(n, ast.ImportFrom))
        bound = {
            alias.asname or alias.name
            for node in froms
            for alias in node.names
            if f"{node.module}.{alias.name}".removeprefix(f"{PACKAGE}.") in MODULES
        }
        for node in nodes:
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                assert ast.unparse(node.value) not in bound, f"{module}: {ast.unparse(node)}"


def is_private(name: str) -> bool:
    """`_name`, but not `__version__`."""
    return name.startswith("_") and not name.endswith("__")


def may_see(module: str, target: str) -> bool:
    """A private module is for the files of its own folder, and below."""
    folder, _, last = target.rpartition(".")
    return not is_private(last) or f"{module}.".startswith(f"{folder}.")


def test_the_package_does_not_use_its_own_doors():
    """A lazy import that hides an arrow from these tests and from the hash of the code."""
    for module, target, name in IMPORTS:
        assert target or name == "__version__", f"{module} imports {name} from {PACKAGE}"


def functions() -> Iterator[tuple[str, int]]:
    """(where, lines from `def` to the end) of every function."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{module}.{node.name}", lines


def test_no_file_is_too_long():
    """A hub: the file that every change touches."""
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in (*MODULES.values(), *sorted((ROOT / "benchmarks").glob("*.py")))
    }
    assert not {file: lines for file, lines in lengths.items() if lines > FILE_LINES}


def test_no_function_is_too_long():
    """A step that has to be read twice to be changed once."""
    assert not {where: lines for where, lines in functions() if lines > FUNCTION_LINES}


def test_functions_are_short():
    """Rules that hold for each function and are used up by all of them."""
    assert median(lines for _, lines in functions()) <= MEDIAN_LINES
