"""Recipes: every mistake is named where it stands, and what is shipped parses."""

import ast
import dataclasses
import inspect
import subprocess
import sys
import textwrap
from functools import reduce
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.models.encoders import ENCODERS, encoder_options
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.inputs.sessions import SessionSettings
from cppncripto_strategy.models.labels import Costs, LabelSettings
from cppncripto_strategy.models.pretraining import OBJECTIVES, objective_options
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import (
    LearnSettings,
    MicroNetSettings,
    PretrainSettings,
    TrainSettings,
)
from cppncripto_strategy.paths import RecipeFile, shipped_recipes
from cppncripto_strategy.recipe import (
    Recipe,
    load_recipe,
    parse_recipe,
    parse_timerange,
)

RUNS = Path(__file__).parents[2] / "runs"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"sybmols": ["A"]}, r"unknown key 'sybmols' \(did you mean 'symbols'\?\)"),
        ({"macro": {"long_windw": 1}}, r"'macro.long_windw' \(did you mean 'long_window'\?\)"),
        (
            {"candles": {"planted": {"sigmma": 1}}},
            r"'candles.planted.sigmma' \(did you mean 'sigma'\?\)",
        ),
        ({"zzzzqq": 1}, r"unknown key 'zzzzqq'; known here: .*broker"),
        ({"micro": {"head": "clases"}}, "micro.head: .*'classes' or 'regression'"),
        ({"threshold": {"quantile": 0.7}}, "threshold.quantile: .*less than 0.5"),
        ({"walkforward": {"train_days": 0}}, "walkforward.train_days: .*greater than or equal"),
        ({"interval": "7m"}, "interval 7m does not divide a day"),
        ({"interval": "5"}, "interval '5' is not understood"),
        ({"symbols": ["A", "A"]}, "symbols repeat: A, A"),
        ({"symbols": []}, "symbols: "),
        ({"timerange": "20240101-20230101"}, "ends before it starts"),
        ({"seed": "one"}, "seed: "),
        ({"name": "../up"}, "name: "),
        ({"macro": {"encoder": "tnc"}}, r"macro.encoder: .*'tnc' is unknown \(did you mean 'tcn'"),
        (
            {"macro": {"encoder_options": {"chanels": 32}}},
            r"macro.encoder_options: unknown option 'chanels' of encoder 'tcn' \(did you mean"
            r" 'channels'\?\); known: channels, dilations, half_life, kernel, members, stride",
        ),
        (
            {"macro": {"encoder": "gru", "encoder_options": {"kernel": 3}}},
            "unknown option 'kernel' of encoder 'gru'",
        ),
        ({"macro": {"encoder_options": {"stride": 0}}}, "encoder 'tcn': stride: .*equal to 1"),
        ({"macro": {"encoder_options": {"dilations": []}}}, "dilations: .*at least 1 item"),
        ({"macro": {"encoder_options": {"kernel": "wide"}}}, "kernel: .*valid integer"),
        (
            {"macro": {"encoder": "transformer", "encoder_options": {"channels": 10}}},
            "channels=10 must be a multiple of heads=4",
        ),
        (
            {"macro": {"encoder": "cppn", "encoder_options": {"genome": {"nodes": []}}}},
            "encoder 'cppn': this is not a genome",
        ),
        ({"macro": {"objective": "mask"}}, r"macro.objective: .*\(did you mean 'masked'"),
        (
            {"macro": {"objective_options": {"temprature": 1}}},
            r"macro.objective_options: unknown option 'temprature' .*'temperature'",
        ),
        ({"macro": {"objective": "masked", "objective_options": {"share": 1.0}}}, "less than 1"),
        (
            {"label": {"kind": "fixd"}},
            r"label.kind: label 'fixd' is unknown \(did you mean",
        ),
        ({"label": {"kind": "barrier", "barrier_bps": 0}}, "label: kind = 'barrier' needs barrier"),
        ({"label": {"options": {"barier": 1}}}, "unknown option 'barier' of label 'fixed'"),
        ({"label": {"options": {"threshold_bps": 1}}}, "write threshold_bps beside kind"),
    ],
)
def test_mistake_is_named_with_its_key(values, text):
    """A typing error that is silently ignored, or a traceback of the validator."""
    with pytest.raises(RecipeError, match=text) as caught:
        parse_recipe(values, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert "Value error" not in message


def test_two_mistakes_are_told_at_once():
    """One round of mending for each mistake."""
    with pytest.raises(RecipeError, match=r"'micro.epoch'.*; unknown key 'sed'"):
        parse_recipe({"sed": 1, "micro": {"epoch": 3}})


@pytest.mark.parametrize(
    "text", ["20240101", "2024-01-01-2024-02-01", "20240101-20241399", "x-y", "20240101-20240101"]
)
def test_timerange_that_is_none_is_refused(text):
    """A range read as another one, or an empty one."""
    with pytest.raises(RecipeError, match="timerange"):
        parse_timerange(text)


def test_timerange_is_utc_dates_end_exclusive():
    """Local time, or a last day that is traded."""
    span = parse_timerange("20240101-20240901")
    assert (span.start_ms, span.end_ms) == (utc_to_ms("2024-01-01"), utc_to_ms("2024-09-01"))


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text)
    return path


def test_folder_is_relative_to_the_recipe_and_home_is_expanded(tmp_path, monkeypatch):
    """Candles looked for where the user happens to stand, or in a folder called ~."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    inner = tmp_path / "inner"
    inner.mkdir()
    for given, expected in (
        ("../candles", tmp_path / "candles"),
        ("/data/candles", Path("/data/candles")),
        ("~/candles", tmp_path / "home" / "candles"),
    ):
        recipe = load_recipe(write(inner, f'[candles]\nfolder = "{given}"\n'))
        assert recipe.candles.folder == expected


def test_overrides_replace_and_none_leaves(tmp_path):
    """A command-line option that does nothing, or wipes what the file says."""
    path = write(tmp_path, 'seed = 4\nsymbols = ["A"]\ntimerange = "20240101-20240201"\n')
    recipe = load_recipe(path, seed=0, symbols=("B", "C"), timerange=None)
    assert (recipe.seed, recipe.symbols, recipe.timerange) == (0, ("B", "C"), "20240101-20240201")
    with pytest.raises(RecipeError, match="timerange 'soon'"):
        load_recipe(path, timerange="soon")


@pytest.mark.parametrize(
    ("file", "name"), [("mine.toml", "mine"), ("my run (2).toml", "my-run-2"), ("é.toml", "run")]
)
def test_name_comes_from_the_file(tmp_path, file, name):
    """An error about a name that nobody gave."""
    assert load_recipe(write(tmp_path, "", file)).name == name


def test_unreadable_recipes_say_why(tmp_path):
    """A traceback for a missing or broken file."""
    with pytest.raises(RecipeError, match=r"nothing.toml is not a readable recipe: No such file"):
        load_recipe(tmp_path / "nothing.toml")
    with pytest.raises(RecipeError, match=r"is not a readable recipe: not valid TOML: .*line 2"):
        load_recipe(write(tmp_path, "seed = 1\nseed = = 2\n"))


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_parses_and_comes_back_from_its_plain_values(path):
    """A recipe that broke when a key was renamed; a resolved recipe.toml that cannot be run."""
    recipe = load_recipe(path)
    assert shipped_recipes()[path.stem].samefile(path)
    assert parse_recipe(recipe.to_plain()) == recipe


def test_unknown_shipped_recipe_names_the_known_ones():
    """A bare file-not-found for a misspelt name."""
    with pytest.raises(
        RecipeError, match=r"no recipe 'dmeo'.*did you mean 'demo'.*shipped are: demo, "
    ):
        RecipeFile.find("dmeo")


def other_value(value):
    """A valid value that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 + 0.01
    options = {"robust": "minmax", "classes": "regression", "fixed": "barrier", "tcn": "gru"}
    options |= {"contrastive": "masked", "calendar": "drift"}
    if isinstance(value, list):
        return [*value, "taker_imbalance"]
    return options[value]


OPTIONS = {
    "encoder_options": {"channels": 5},
    "objective_options": {"temperature": 0.5},
    "market": "BTCUSDT",
    "terms": ["weekday"],
    "reading": "variance",
    "pool": 12,
}


def test_old_taker_key_names_the_new_one(caplog):
    """A recipe of the last version that stops working, or goes on without the feature."""
    features = parse_recipe({"features": {"taker": True}}).features
    assert features.columns == (*Recipe().features.columns, "taker_imbalance")
    assert '"taker_imbalance" in features.columns instead' in caplog.text
    assert parse_recipe({"features": {"taker": False}}).features == Recipe().features
    both = {"taker": True, "columns": ["log_return", "present"]}
    named = parse_recipe({"features": both}).features.columns
    assert named == ("log_return", "present", "taker_imbalance")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["log_retrun", "present"], r"features\.columns: .*did you mean 'log_return'\?"),
        (["log_return", "present", "log_return"], r"features\.columns: .*more than once"),
        (["log_return"], r"features\.columns: 'present' is not among"),
    ],
)
def test_features_that_cannot_be_are_refused(columns, message):
    """A misspelt feature found when the candles are read, or a network without its mask."""
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"features": {"columns": columns}})


def test_a_market_symbol_brings_its_columns_unless_some_are_named():
    """A market that is named and read by nothing, or columns that nobody asked for."""
    plain = Recipe().features.columns
    market = parse_recipe({"features": {"market": "BTCUSDT"}})
    assert market.features.columns == (*plain, *MARKET_COLUMNS)
    assert Recipe.model_validate(market.to_plain()) == market
    named = ["log_return", "present", "market_volume_z", "market_present"]
    chosen = parse_recipe({"features": {"market": "BTCUSDT", "columns": named}})
    assert list(chosen.features.columns) == named
    session = chosen.learn_settings().session
    assert (session.market, session.reads_market) == ("BTCUSDT", True)
    assert Recipe().learn_settings().session == SessionSettings()


def test_a_market_symbol_is_subscribed_once():
    """A traded market symbol fed twice, or one that is only read never fetched."""
    beside = parse_recipe({"symbols": ["ETHUSDT"], "features": {"market": "BTCUSDT"}})
    assert (beside.beside, beside.subscribed) == (("BTCUSDT",), ("ETHUSDT", "BTCUSDT"))
    traded = parse_recipe({"symbols": ["ETHUSDT", "BTCUSDT"], "features": {"market": "BTCUSDT"}})
    assert (traded.beside, traded.subscribed) == ((), ("ETHUSDT", "BTCUSDT"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"features": {"columns": ["log_return", "present", "market_log_return"]}},
            r"'market_present' alone tells the networks",
        ),
        (
            {"features": {"columns": ["log_return", "present", "market_present"]}},
            r"market_present read a market symbol's candles: name it",
        ),
        (
            {"macro": {"terms": ["har", "market_har"]}},
            r"market_har, and features\.market no",
        ),
        ({"macro": {"terms": ["weekend"]}}, r"macro\.terms: weekend: no such term .* weekday"),
        ({"macro": {"pool": 7}}, r"macro\.pool = 7 does not divide a day of 288 candles"),
        ({"macro": {"pool": 12, "encoder": "cppn"}}, r"encoder 'cppn' averages candles by itself"),
        ({"macro": {"terms": ["har", "har"]}}, r"named more than once"),
    ],
)
def test_markets_and_terms_that_cannot_be_are_refused(values, message):
    """A column that reads NaN for want of a symbol, or a term that is silently left out."""
    with pytest.raises(RecipeError, match=message):
        parse_recipe(values)


def test_a_forecast_brings_the_terms_it_starts_from():
    """A forecast without its anchor, or a market's lags without a market."""
    forecast = {"objective": "forecast"}
    own = parse_recipe({"macro": forecast}).learn_settings().session.terms
    assert own == ("weekday", "har", "yesterday", "hours")
    market = parse_recipe({"macro": forecast, "features": {"market": "BTCUSDT"}})
    expected = ("weekday", "har", "market_har", "yesterday", "hours", "market_hours")
    assert market.learn_settings().session.terms == expected
    assert parse_recipe({}).learn_settings().session.terms == ()
    with pytest.raises(RecipeError, match=r"starts from HAR: add 'har' to macro\.terms"):
        parse_recipe({"macro": {**forecast, "terms": ["weekday"]}})


def test_a_recipe_is_judged_without_torch():
    """Seconds of imports before a typo in a feature's name is reported."""
    code = (
        "import sys\n"
        "from cppncripto_strategy.errors import RecipeError\n"
        "from cppncripto_strategy.recipe import parse_recipe\n"
        "try: parse_recipe({'features': {'columns': ['log_retrun']}})\n"
        "except RecipeError: print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


LEARNING = ("features", "macro", "micro", "label", "walkforward")
# `enabled` chooses the arms in `run_backtest`, through `use_macro`.
# `label.options` is for kinds that the package does not have; test_plugins uses one.
ELSEWHERE = {("macro", "enabled"), ("label", "options")}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (section, key)
        for section in LEARNING
        for key in Recipe.model_fields[section].annotation.model_fields
        if (section, key) not in ELSEWHERE
    ],
)
def test_every_learning_key_reaches_the_learning(section, key):
    """A key that is documented, validated, and does nothing."""
    plain = Recipe().to_plain()
    if key == "barrier_bps":
        plain["label"]["kind"] = "trade"
    before = parse_recipe(plain)
    value = OPTIONS[key] if key in OPTIONS else other_value(plain[section][key])
    plain[section][key] = value
    assert parse_recipe(plain).learn_settings() != before.learn_settings()


SETTINGS = {
    "macro": (PretrainSettings, LearnSettings),
    "micro": (MicroNetSettings, TrainSettings, LearnSettings),
    "label": (LabelSettings,),
    "walkforward": (LearnSettings,),
    "threshold": (ThresholdSettings,),
    "broker": (Costs,),
}


@pytest.mark.parametrize("section", SETTINGS)
def test_no_default_of_a_section_is_written_twice(section):
    """Five defaults of one setting, of which a user gets whichever path he took."""
    cls = Recipe.model_fields[section].annotation
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    literal = {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and not isinstance(node.value, ast.Call | ast.Name)
    }
    ours = {f.name for settings in SETTINGS[section] for f in dataclasses.fields(settings)}
    kept = {"encoder_options", "objective_options", "options"}  # empty: nothing to keep in step
    assert literal & ours <= kept
    assert cls.model_fields.keys() & ours, "no setting of this section is known to `models`"


PROBE = """
import sys
from pathlib import Path
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.recipe import load_recipe
try:
    load_recipe(Path(sys.argv[1]))
except RecipeError as error:
    print(error)
print([name for name in ("torch", "pandas", "backtrader") if name in sys.modules])
"""


@pytest.mark.parametrize(
    "text",
    [
        "[macro]\nencoder_options = {chanels = 32}",
        '[macro]\nencoder = "cppn"\nencoder_options = {chanels = 32}',
        '[macro]\nobjective = "masked"\nobjective_options = {chanels = 32}',
        "[label]\noptions = {chanels = 32}",
        "",
    ],
)
def test_no_recipe_needs_torch_to_be_judged(tmp_path, text):
    """Seconds of imports before a typing error is named."""
    path = write(tmp_path, text)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert ("unknown option 'chanels'" in lines[0]) == bool(text)


COMMAND = """
import sys
from cppncripto_strategy.cli import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in ("torch", "backtrader") if name in sys.modules])
"""


@pytest.mark.parametrize("command", ["run", "check", "evolve", "paper", "experiment e1"])
def test_a_typing_error_costs_no_command_its_imports(tmp_path, command):
    """A command that imports torch first and reads the recipe afterwards."""
    path = write(tmp_path, "[macro]\nencoder_options = {chanels = 32}")
    arguments = [sys.executable, "-c", COMMAND, *command.split(), str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "did you mean 'channels'?" in done.stderr
    assert done.stdout.strip() == "[]"


def leaves(annotation):
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    return {leaf for part in inner for leaf in leaves(part)} if inner else {annotation}


def number_keys(model, *path):
    """(path, types) of every key at and below a table that holds numbers."""
    for name, field in model.model_fields.items():
        types = leaves(field.annotation)
        for table in [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]:
            yield from number_keys(table, *path, name, *(["S"] if str in types else []))
        if types & {int, float}:
            yield (*path, name), types


def options_keys():
    """As `number_keys`, of the options of the package's own encoders and objectives."""
    for part, registry, options in (
        ("encoder", ENCODERS, encoder_options),
        ("objective", OBJECTIVES, objective_options),
    ):
        for name in registry.names():
            for (key,), types in number_keys(type(options(name, {}))):
                yield ("macro", part, name, key), types


def recipe_with(path, value):
    """The plain values of a recipe with one of them."""
    if path[1:2] in (("encoder",), ("objective",)):
        _, part, name, key = path
        return {"macro": {part: name, f"{part}_options": {key: value}}}
    return reduce(lambda inner, name: {name: inner}, reversed(path), value)


@pytest.mark.parametrize(
    ("path", "types"),
    [*number_keys(Recipe), *options_keys()],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_every_number_has_bounds(path, types):
    """An overflow deep in numpy or torch, or a run of 10^30 epochs, from a slip of the finger."""
    wrong = (10**30, -(10**30), 2**63) if int in types else (float("inf"), float("nan"))
    for number in wrong:
        value = [number, number] if path[-1] in ("band", "dilations") else number
        with pytest.raises(RecipeError, match=path[-1]):
            parse_recipe(recipe_with(path, value))
