"""Wherever a recipe is asked for: a file or a shipped name, and a mistake is told at once."""

import json
import subprocess
import sys

import pytest

from cppncripto_strategy.commands._recipe_options import RecipeRequest
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.paths import RecipeHome, shipped_recipes

COMMANDS = {
    "run": ["run"],
    "check": ["check"],
    "experiment": ["experiment", "e1"],
    "evolve": ["evolve"],
    "paper": ["paper"],
}
SHIPPED = ["demo", "experiments", "null", "planted", "real", "tune", "tune_real", "universe"]


def refused(*arguments):
    """Message and modules in memory after `cppn-bt ARGUMENTS` was refused, in a fresh process."""
    code = (
        "import json, sys\n"
        "from cppncripto_strategy.cli import main\n"
        f"try:\n    main({list(arguments)!r})\n"
        "except SystemExit as stopped:\n    assert stopped.code == 1, stopped.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return " ".join(done.stderr.split()), set(json.loads(done.stdout))


@pytest.mark.parametrize("name", COMMANDS)
def test_typo_in_a_recipe_is_told_before_torch_is_imported(name, tmp_path):
    """Seconds of imports, in some commands a training, before a typo of one key is found."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text("sed = 1\n[macro]\nlong_windw = 1440\n")
    message, modules = refused(*COMMANDS[name], str(recipe))
    assert "(did you mean 'seed'?)" in message
    assert "(did you mean 'long_window'?)" in message
    assert modules.isdisjoint({"torch", "backtrader", "pandas"})


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_recipe_lists_the_shipped_ones_and_the_nearest(name):
    """ "No such file" to somebody who does not know which recipes there are."""
    message, modules = refused(*COMMANDS[name], "plantd")
    assert "no recipe 'plantd'" in message
    assert "(did you mean 'planted'?)" in message
    assert f"shipped are: {', '.join(SHIPPED)}" in message
    assert modules.isdisjoint({"torch", "backtrader", "pandas"})


def test_shipped_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    """A results folder of that name, taken for the recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted").mkdir()
    assert list(shipped_recipes()) == SHIPPED
    request = RecipeRequest("planted", symbols="one, two,", seed=7)
    recipe = request.load()
    assert (recipe.name, recipe.symbols, recipe.seed) == ("planted", ("ONE", "TWO"), 7)
    assert request.home() == RecipeHome(RecipeHome.of(tmp_path / "planted.toml", True).path)
    assert RecipeRequest().load().name == "demo"


def test_file_of_a_shipped_name_is_the_file(tmp_path, monkeypatch):
    """A person's own recipe, silently replaced by one that is shipped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("seed = 41\n")
    request = RecipeRequest("demo")
    assert request.load().seed == 41
    assert not request.file().shipped


def test_shipped_recipe_reads_candles_of_the_current_folder(tmp_path, monkeypatch):
    """A store looked for beside the installed package, where nobody puts candles."""
    monkeypatch.chdir(tmp_path)
    assert RecipeRequest("real").load().candles.folder == tmp_path / "candles"
    other = RecipeRequest("real", candles=tmp_path / "mine").load()
    assert other.candles.folder == tmp_path / "mine"
    assert RecipeRequest("demo", candles=tmp_path / "mine").load().candles.source == "folder"


def test_neither_file_nor_name_is_an_error_of_ours():
    """A FileNotFoundError with a traceback."""
    with pytest.raises(RecipeError, match=r"no recipe 'nowhere/demo\.toml'.*did you mean 'demo'"):
        RecipeRequest("nowhere/demo.toml").load()
