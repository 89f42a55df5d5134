"""`cppn-bt evolve`: the command, its folder and page, resuming, and bundles with a champion."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.backtest import run_backtest
from cppncripto_strategy.cli import cli
from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.evolution.page import (
    archive_figure,
    front_figure,
    history_figure,
    kernel_figure,
    node_places,
    response_figure,
    write_evolution_page,
)
from cppncripto_strategy.evolution.search import choose, evolve, prepare, substrate_of
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.locks import FileLock
from cppncripto_strategy.market import load_market, session_tables
from cppncripto_strategy.models.bundle import Bundle
from cppncripto_strategy.models.encoders import build_encoder
from cppncripto_strategy.models.hyperneat.genome import Genome, Link, Node
from cppncripto_strategy.models.hyperneat.settings import (
    FITNESSES,
    EvolutionSettings,
    NeatSettings,
)
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.recipe import load_recipe
from cppncripto_strategy.spreading.spread import Spread

RECIPE = """
symbols = ["PLANTED"]
[candles]
source = "planted"
[candles.planted]
days = 100
[features]
scaler = "robust"
[macro]
encoder = "cppn"
encoder_options = { channels = 6, dilations = [1, 2] }
long_window = 576
epochs = 1
[micro]
epochs = 1
initialisations = 1
[walkforward]
train_days = 64
validate_days = 7
retrain_days = 28
"""
SMALL = EvolutionSettings(
    generations=2, search="neat", fitness="profile", seed=3, neat=NeatSettings(population=6)
)
ARGUMENTS = ["--search", "neat", "--generations", "3", "--population", "6", "--seed", "3", "--json"]


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("evolve") / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def evolved(recipe_path):
    folder = recipe_path.parent / "evolved"
    return evolve(load_recipe(recipe_path), SMALL, folder, Spread("none")), folder


def test_evolution_sees_no_candle_of_validation_or_trading(recipe_path):
    """Fitness on days that judge the networks later is tuning on the hold-out."""
    recipe = load_recipe(recipe_path)
    ground = prepare(recipe)
    market = load_market(recipe)
    settings = recipe.learn_settings()
    tables = session_tables(market, settings.session)
    judged = {kind: ground.probe_data(ground.session, ground.substrate, kind) for kind in FITNESSES}
    for data in judged.values():
        assert data.day_ms.max() + DAY_MS <= ground.until_ms
    bundle = learn_bundle(
        tables, ground.until_ms + recipe.walkforward.validate_days * DAY_MS, settings, seed=0
    )
    validated = bundle.bank_ms[bundle.bank_ms >= ground.until_ms]
    assert len(validated) == recipe.walkforward.validate_days
    for candles in market.candles.values():
        future = candles.open_time + recipe.interval_ms > ground.until_ms
        candles.close[future] *= 3
        candles.volume[future] *= 7
    for kind, data in judged.items():
        again = ground.probe_data(ground.session, ground.substrate, kind)
        assert again.fingerprint() == data.fingerprint()


def test_second_evolution_in_a_folder_is_refused_before_it_looks(recipe_path, tmp_path):
    """Two evolutions that write one checkpoint in turns: neither can be resumed."""
    recipe = load_recipe(recipe_path).model_copy(update={"symbols": ("NOTHING",)})
    with (
        FileLock.take(tmp_path / ".lock", "it", BundleError, ""),
        pytest.raises(BundleError, match=r"in use by this process.*another --out"),
    ):
        evolve(recipe, SMALL, tmp_path, Spread("none"), fresh=True)


def test_page_shows_front_graph_and_kernels_without_the_network(evolved):
    """A page that loads scripts from elsewhere is blank on a train."""
    result, folder = evolved
    page = (folder / "evolution.html").read_text()
    for block in ("front", "history", "archive", "response", "genome", "kernels"):
        assert f'id="{block}"' in page
    assert 'src="http' not in page
    assert str(folder.resolve() / "champion.json") in page
    assert len(result.transfers) >= 4


def test_nodes_are_drawn_after_everything_they_read():
    """A hidden node left of its input makes the graph unreadable."""
    nodes = [Node(key, 0.0, 1.0, "sin", "sum") for key in (0, 1, 5, 6)]
    links = [(-1, 5), (5, 6), (6, 0), (-3, 6), (-2, 1)]
    genome = Genome(
        1, tuple(nodes), tuple(Link(a, b, 1.0, True, i) for i, (a, b) in enumerate(links))
    )
    places = node_places(genome)
    assert all(places[a][0] < places[b][0] for a, b in links)
    assert places[0][0] == places[1][0] == 1.0
    assert len(set(places.values())) == len(places)


def test_finished_evolution_can_be_picked_from_again(evolved, recipe_path):
    """Choosing another point must not evaluate anything, nor lose the front."""
    first, folder = evolved
    wanted = first.run.front[0].score.connections
    picked = evolve(load_recipe(recipe_path), SMALL, folder, Spread("none"), pick=str(wanted))
    assert picked.genomes == 0
    assert json.loads((folder / "champion.json").read_text())["score"]["connections"] == wanted
    assert picked.run.to_json() == first.run.to_json()
    assert choose(first.run, "best") == (first.run.front[-1],)
    with pytest.raises(RecipeError, match=f"these numbers of connections.*{wanted}"):
        choose(first.run, "7")


def test_transfer_to_longer_candles_sees_the_same_days(recipe_path):
    """15-minute candles of the same market must be judged on the same sessions."""
    ground = prepare(load_recipe(recipe_path))
    session = replace(ground.session, interval_ms=900_000, long_window=192)
    substrate = replace(ground.substrate, interval_ms=900_000, stride=4)
    longer = ground.probe_data(session, substrate)
    shorter = ground.probe_data(ground.session, ground.substrate)
    later = longer.day_ms[0]  # a day of volumes is 288 candles: three days of longer ones
    assert longer.rows.shape[1:] == shorter.rows.shape[1:]
    np.testing.assert_array_equal(longer.day_ms, shorter.day_ms[shorter.day_ms >= later])


def test_elites_share_out_the_encoder_and_the_page(recipe_path):
    """A bank of which only the first genome is written, drawn or trained."""
    recipe, folder = load_recipe(recipe_path), recipe_path.parent / "elites"
    wanted = replace(SMALL, search="map-elites", fitness="gain", generations=3)
    result = evolve(recipe, wanted, folder, Spread("none"), pick="elites:2")
    champion = json.loads((folder / "champion.json").read_text())
    fittest = [elite.genome.to_json() for elite in result.run.archive.elites(2)]
    assert [champion["genome"], *champion["bank"]] == fittest
    page = (folder / "evolution.html").read_text()
    for block in ("response-1", "response-2", "kernels-2", "genome-2"):
        assert f'id="{block}"' in page
    options = {"genome": str(folder / "champion.json")}
    macro = recipe.macro.model_copy(update={"encoder_options": options})
    options = recipe.model_copy(update={"macro": macro}).learn_settings().encoder_options
    encoder = build_encoder("cppn", len(champion["substrate"]["features"]), options)
    assert [genome.to_json() for genome in encoder.genomes] == fittest
    again = evolve(recipe, wanted, folder, Spread("none"))
    assert again.genomes == 0
    assert again.champion[0] in again.run.front


def test_evolution_takes_the_substrate_of_the_recipe(recipe_path):
    """Coordinates, gates and pooled rows that only a hand-made substrate would have."""
    recipe = load_recipe(recipe_path)
    options = {"coordinates": ["day"], "gated": True, "half_life": 6.0}
    macro = recipe.macro.model_copy(update={"encoder_options": options})
    where = prepare(recipe.model_copy(update={"macro": macro})).substrate
    assert (where.coordinates, where.gated, where.half_life) == (("day",), True, 6.0)
    pooled = replace(prepare(recipe).session, pool=12)
    hourly = substrate_of(recipe, pooled)
    assert (hourly.stride, hourly.interval_ms) == (1, 3_600_000)
    np.testing.assert_array_equal(
        hourly.tap_times(hourly.layers[0]), prepare(recipe).substrate.tap_times(hourly.layers[0])
    )


@pytest.mark.slow
def test_run_trades_with_an_evolved_and_fine_tuned_encoder(evolved, recipe_path):
    """The fourth encoder goes through training, bundle, indicators and broker like the others."""
    path = recipe_path.with_name("traded.toml")
    path.write_text(
        RECIPE.replace(
            "{ channels = 6, dilations = [1, 2] }", '{ genome = "evolved/champion.json" }'
        )
    )
    folder = recipe_path.parent / "run"
    result = run_backtest(load_recipe(path, compare_without_macro=False), folder, folder / "cache")
    assert np.isfinite(result.signals["score"]).all()
    assert (result.signals["score"] != result.signals["score_zero"]).any()
    (bundle,) = {row["hash"]: row for row in result.bundles}.values()
    saved = Bundle.load(next((folder / "cache" / "with-macro").iterdir()))
    champion = json.loads((recipe_path.parent / "evolved" / "champion.json").read_text())
    assert bundle["hash"] == saved.model_hash
    assert saved.info.encoder_options["genome"] == champion["genome"]
    assert saved.macro.encoder.connections == champion["score"]["connections"]


def test_recipe_names_a_champion_relative_to_itself(evolved, recipe_path):
    """The settings hold the genome, not its path: a cache keyed by the path would go stale."""
    result, folder = evolved
    path = recipe_path.with_name("user.toml")
    path.write_text(
        RECIPE.replace(
            "{ channels = 6, dilations = [1, 2] }", '{ genome = "evolved/champion.json" }'
        )
    )
    options = load_recipe(path).learn_settings().encoder_options
    champion = json.loads((folder / "champion.json").read_text())
    assert options["genome"] == champion["genome"]
    assert options["evolved_until_ms"] == result.until_ms
    path.write_text(path.read_text().replace("champion.json", "absent.json"))
    with pytest.raises(RecipeError, match=r"absent\.json is not a readable genome: No such file"):
        load_recipe(path).learn_settings()


def test_bundle_refuses_a_genome_that_saw_its_future(evolved, recipe_path):
    """Backtesting last year with a genome evolved on this year is a leak nothing else would see."""
    result, folder = evolved
    recipe = load_recipe(recipe_path)
    options = {"genome": str(folder / "champion.json")}
    recipe = recipe.model_copy(
        update={"macro": recipe.macro.model_copy(update={"encoder_options": options})}
    )
    settings = recipe.learn_settings()
    tables = session_tables(load_market(recipe), settings.session)
    with pytest.raises(BundleError, match="evolved on candles until"):
        learn_bundle(tables, result.until_ms - DAY_MS, settings, seed=0)
    bundle = learn_bundle(tables, result.until_ms + 7 * DAY_MS, settings, seed=0)
    champion = json.loads((folder / "champion.json").read_text())
    assert bundle.macro.encoder.connections == champion["score"]["connections"]


def test_bundle_refuses_a_genome_of_other_features(evolved, recipe_path):
    """As many features in another order: kernels painted for one column lie on another."""
    result, folder = evolved
    recipe = load_recipe(recipe_path)
    options = {"genome": str(folder / "champion.json")}
    turned = recipe.features.columns[::-1]
    recipe = recipe.model_copy(
        update={
            "macro": recipe.macro.model_copy(update={"encoder_options": options}),
            "features": recipe.features.model_copy(update={"columns": turned}),
        }
    )
    settings = recipe.learn_settings()
    tables = session_tables(load_market(recipe), settings.session)
    with pytest.raises(BundleError, match="evolved on the features log_return, volatility_12"):
        learn_bundle(tables, result.until_ms + 7 * DAY_MS, settings, seed=0)


def test_command_tells_people_in_words_and_programs_in_json(recipe_path):
    """Progress on stdout would break whoever parses it; without words nobody knows what is next."""
    out = recipe_path.parent / "command"
    arguments = ["evolve", str(recipe_path), *ARGUMENTS[:-1], "--backend", "none"]
    words = CliRunner().invoke(cli, [*arguments, "--out", str(out)])
    assert words.exit_code == 0, words.output
    assert "3/3" in words.stderr
    assert "species" in words.stderr
    assert 'encoder = "cppn"' in words.stdout
    again = CliRunner().invoke(cli, [*arguments, "--out", str(out), "--json"])
    document = json.loads(again.stdout)
    assert len(document["history"]) == 3
    assert document["genomes"] == 0, "the finished run was evaluated again"
    assert Path(document["champion"]).is_file()


@pytest.mark.posix
@pytest.mark.slow
def test_killed_run_resumes_to_the_same_champion(recipe_path):
    """kill -9 between two generations, or in the midst of one, changes nothing in the end."""
    whole, killed = recipe_path.parent / "whole", recipe_path.parent / "killed"
    command = [sys.executable, "-m", "cppncripto_strategy.cli", "evolve", str(recipe_path)]
    command += [*ARGUMENTS, "--backend", "none", "--out"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True, timeout=120)
    process = subprocess.Popen(
        [*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (killed / "checkpoint.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    generation = json.loads((killed / "checkpoint.json").read_text())["generation"]
    assert 1 <= generation < 3, "the run was not killed half way"
    subprocess.run([*command, str(killed)], check=True, capture_output=True, timeout=120)
    for name in ("champion.json", "checkpoint.json", "front.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


def test_page_escapes_the_name_of_its_recipe(evolved, tmp_path):
    """A recipe's file name that runs as a script."""
    path = tmp_path / "evolution.html"
    write_evolution_page(path, evolved[0], "<script>alert(1)</script>")
    page = path.read_text("utf-8")
    assert "<script>alert" not in page
    assert page.count("Evolution of &lt;script&gt;alert(1)&lt;/script&gt;") == 2


def test_every_chart_with_axes_says_what_they_show(evolved):
    """A front of nobody knows what against nobody knows what."""
    run = evolved[0].run
    genome = run.front[0].genome
    for figure in (
        front_figure(run.front, 0),
        history_figure(run.history),
        archive_figure(run.archive, run.substrate),
        response_figure(genome, run.substrate),
        kernel_figure(genome, run.substrate),
    ):
        layout = figure.to_dict()["layout"]
        axes = {name: axis for name, axis in layout.items() if name[1:].startswith("axis")}
        untitled = [
            name
            for name, axis in axes.items()
            if not axis.get("title", {}).get("text") and not axis.get("matches")
        ]
        assert untitled == []
