"""The package's public names: which they are, that they cost nothing until used."""

from __future__ import annotations

import ast
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
