"""A plugin file in a recipe: known by name, checked, keyed by content, asked for by bundles."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cppncripto_strategy import plugins
from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.experiments.cells import Arm, changed
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.market import load_market, session_tables
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.encoders import ENCODERS
from cppncripto_strategy.models.learning.cache import cache_key
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.paper.create import recipe_of
from cppncripto_strategy.recipe import Recipe, load_recipe, parse_recipe
from cppncripto_strategy.registry import forget_everywhere
from cppncripto_strategy.results import to_toml

EXAMPLE = Path(__file__).with_name("plugin_example.py")
RECIPE = """
interval = "1h"
plugins = ["mine.py"]
[candles]
source = "planted"
planted = { days = 70 }
[macro]
encoder = "patches"
encoder_options = { stride = 4 }
objective = "last return"
objective_options = { weight = 0.5 }
long_window = 288
epochs = 1
[micro]
short_window = 12
channels = 4
hidden = 4
components = 2
initialisations = 1
epochs = 1
[label]
kind = "sign"
horizon = 4
options = { floor_bps = 5.0 }
[walkforward]
train_days = 14
validate_days = 21
retrain_days = 7
macro_retrain_days = 7
"""


def forget(path: Path) -> None:
    """As in a process that never ran the file."""
    forget_everywhere(str(path))
    plugins._LOADED.pop(path, None)


@pytest.fixture
def path(tmp_path):
    """A recipe beside its plugin; the plugin is forgotten afterwards."""
    shutil.copy(EXAMPLE, tmp_path / "mine.py")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE)
    yield recipe
    for plugin in tmp_path.rglob("*.py"):
        forget(plugin)


def learned(recipe: Recipe, cache: Path | None) -> tuple[BundleTimeline, list]:
    torch.set_num_threads(1)
    settings = recipe.learn_settings()
    tables = session_tables(load_market(recipe), settings.session)
    start = int(tables[0].start_ms[-8]) // DAY_MS * DAY_MS
    return walk_forward(tables, start, start + DAY_MS, settings, 0, cache), tables


def test_a_plugin_of_three_parts_trains_saves_and_is_asked_for_by_name(path, tmp_path):
    """A plugin that works in one process, and a bundle of it that dies in the next one."""
    recipe = load_recipe(path)
    timeline, _ = learned(recipe, tmp_path / "cache")
    bundle = timeline.bundles[-1]
    digest = hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    assert [(p.kind, p.name, p.file, p.sha256) for p in bundle.info.plugins] == [
        ("encoder", "patches", "mine.py", digest),
        ("objective", "last return", "mine.py", digest),
        ("label", "sign", "mine.py", digest),
    ]
    assert bundle.info.encoder_options == {"stride": 4}
    assert bundle.info.label["options"] == {"floor_bps": 5.0}
    folder = bundle.save(tmp_path / "saved")
    again = Bundle.load(folder)
    window = torch.randn(2, 288, len(bundle.info.session.names))
    assert torch.equal(again.macro.encoder(window), bundle.macro.encoder(window))
    forget(tmp_path / "mine.py")
    with pytest.raises(BundleError, match=f"encoder 'patches' of the plugin mine.py .*{digest}"):
        Bundle.load(folder)
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text() + "# changed\n")
    load_recipe(path)
    with pytest.raises(BundleError, match=rf"mine.py \(SHA-256 {digest}\), and .*is loaded"):
        Bundle.load(folder)


def test_a_changed_plugin_is_another_key(path, tmp_path):
    """Yesterday's networks found in the cache for today's code."""
    recipe = load_recipe(path)
    settings = recipe.learn_settings()
    tables = session_tables(load_market(recipe), settings.session)
    until = int(tables[0].start_ms[-8])
    before = cache_key(tables, until, settings, 0, None)
    assert before == cache_key(tables, until, load_recipe(path).learn_settings(), 0, None)
    bare = dataclasses.replace(settings, plugins=())  # as Python code without a recipe has it
    bare_before = cache_key(tables, until, bare, 0, None)
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text() + "# changed\n")
    after = load_recipe(path)
    assert before != cache_key(tables, until, after.learn_settings(), 0, None)
    assert after.plugin_digests() != {"mine.py": settings.plugins[0].split()[1]}
    assert bare_before != cache_key(tables, until, bare, 0, None)


def test_a_part_needs_its_file_among_the_recipes_own_plugins(path, tmp_path):
    """A recipe that works only after another one was read in the same process."""
    load_recipe(path)
    assert "patches" in ENCODERS.names()
    path.write_text(RECIPE.replace('plugins = ["mine.py"]', ""))
    with pytest.raises(RecipeError, match=r"'patches' comes from .*mine\.py, which is not among"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('plugins = ["absent.py"]', r"plugin .*absent\.py cannot be read"),
        ('plugins = "mine.py"', r"plugins: Input should be a valid tuple"),
        ("plugins = [3]", r"plugins\.0: Input is not a valid path"),
    ],
)
def test_plugins_that_cannot_be_are_named(path, text, message):
    """A traceback of the importer."""
    path.write_text(RECIPE.replace('plugins = ["mine.py"]', text))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stride = 4", "strid = 4", r"'strid' of encoder 'patches' \(did you mean 'stride'"),
        ("stride = 4", "stride = 0", "encoder 'patches': stride: .*equal to 1"),
        ("weight = 0.5", "wait = 1", "'wait' of objective 'last return'"),
        ("floor_bps = 5.0", "flor_bps = 5", r"'flor_bps' of label 'sign' \(did you mean 'floor"),
        ('"patches"', '"pathces"', r"'pathces' is unknown \(did you mean 'patches'"),
    ],
)
def test_options_of_a_plugin_are_checked_like_ours(path, old, new, message):
    """A typing error in one's own option that is found after minutes."""
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_a_cell_and_a_session_of_the_recipe_find_the_plugin(path, tmp_path):
    """Paths that were relative to a recipe, looked for beside something else."""
    recipe = load_recipe(path)
    cell = changed(recipe, Arm("macro"), 3)
    assert cell.plugins == recipe.plugins == ((tmp_path / "mine.py").resolve(),)
    session = tmp_path / "elsewhere" / "session"
    session.mkdir(parents=True)
    (session / "recipe.toml").write_text(to_toml(recipe.to_plain()))
    forget(tmp_path / "mine.py")
    assert recipe_of(session) == recipe
    assert "patches" in ENCODERS.names()


def test_a_fresh_process_runs_the_recipe(path):
    """A plugin known only where a test registered it: workers and retraining are new processes."""
    code = (
        "import sys; from pathlib import Path\n"
        "from cppncripto_strategy.recipe import load_recipe\n"
        "print(load_recipe(Path(sys.argv[1])).learn_settings().encoder)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "patches"


def test_plain_values_may_name_plugins_too(path, tmp_path):
    """A notebook that needs a file for its recipe."""
    values = {"plugins": [str(tmp_path / "mine.py")], "macro": {"encoder": "patches"}}
    assert parse_recipe(values).macro.encoder == "patches"
