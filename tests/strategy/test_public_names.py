"""The package's public names: which they are, that they cost nothing until used, their examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cppncripto_strategy

PUBLIC = {
    "AdaptiveThreshold",
    "BundleTimeline",
    "CandleStore",
    "Candles",
    "MacroEmbedding",
    "MacroMicroStrategy",
    "MicroScore",
    "Recipe",
    "ReplayFeed",
    "SpotBroker",
    "load_recipe",
    "run_backtest",
}
TRAINS = {"run_backtest"}
ROOT = Path(__file__).parents[2]
PACKAGE = cppncripto_strategy.__name__
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_public_names_are_these():
    """A name that disappears from under its users, or one made public by accident."""
    assert set(cppncripto_strategy.__all__) == PUBLIC
    assert sorted(cppncripto_strategy.__all__) == cppncripto_strategy.__all__
    assert set(dir(cppncripto_strategy)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_what_its_module_defines(name):
    """A door that opens on another room than its label says."""
    value = getattr(cppncripto_strategy, name)
    assert value.__name__ == name
    assert getattr(importlib.import_module(value.__module__), name) is value


def test_unknown_name_is_an_attribute_error():
    """A misspelt name that comes back as something."""
    with pytest.raises(AttributeError, match=r"'cppncripto_strategy' has no attribute 'Candels'"):
        _ = cppncripto_strategy.Candels


def test_type_checkers_see_what_python_imports():
    """A name that an editor finds in one module and Python in another."""
    tree = ast.parse(Path(cppncripto_strategy.__file__).read_text("utf-8"))
    [block] = [n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: getattr(cppncripto_strategy, name).__module__ for name in PUBLIC}


def test_importing_the_package_imports_nothing_else():
    """`cppn-bt --help` that waits seconds for torch."""
    script = (
        "import sys; before = set(sys.modules); import cppncripto_strategy as c; dir(c)\n"
        "heavy = {'torch', 'backtrader', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "ours = {m for m in set(sys.modules) - before if m.startswith('cppncripto')}\n"
        "assert ours == {'cppncripto_strategy'}, ours"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def run_examples(found: doctest.DocTest) -> int:
    """Run the examples of one docstring as a script of its own; the number of its statements."""
    output: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(found, out=output.append)
    assert not result.failed, "".join(output)
    return result.attempted


@pytest.fixture
def beside_bundles(toy, tmp_path, monkeypatch):
    """A working directory with `bundles/`, made of 24 days of hourly planted candles."""
    timeline = toy.timeline(toy.grid(toy.candles()), toy.settings)
    for number, bundle in enumerate(timeline.bundles):
        bundle.save(tmp_path / "bundles" / str(number))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in TRAINS)) for n in sorted(PUBLIC)],
)
def test_example_of_a_public_name_runs(name, beside_bundles):
    """An example that a reader copies from the docstring, and that fails for them."""
    finder = doctest.DocTestFinder(recurse=False)
    value = getattr(cppncripto_strategy, name)
    [found] = finder.find(value, name, module=False, globs={"__name__": "__main__"})
    assert run_examples(found) > 0


def modules_with_examples() -> list[str]:
    """Full names of the modules whose docstrings have examples."""
    names = (p.relative_to(ROOT).with_suffix("").parts for p in sources() if ">>> " in read(p))
    return sorted(".".join(parts if parts[0] == PACKAGE else (PACKAGE, *parts)) for parts in names)


def sources() -> list[Path]:
    """Every source of the package, once."""
    folders = (ROOT / name for name in (PACKAGE, "feeds", "indicators", "models"))
    found = {path.resolve() for folder in folders for path in folder.rglob("*.py")}
    return sorted(found)


def read(path: Path) -> str:
    return path.read_text("utf-8")


@pytest.mark.parametrize("module", modules_with_examples())
def test_every_other_example_runs(module, beside_bundles):
    """An example of a part that nobody runs, until it no longer does."""
    name = module.removesuffix(".__init__")
    finder = doctest.DocTestFinder()
    for found in finder.find(importlib.import_module(name), name, globs={"__name__": "__main__"}):
        if found.name.rpartition(".")[2] not in PUBLIC:
            run_examples(found)
