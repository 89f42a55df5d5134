"""Evolving a recipe's encoder: recipe and candles in, a folder with a champion out.

The genome sees the days that the recipe's first MacroNet would learn from, and none later: not the
validation days, not the traded span. After every generation the whole state is written to
checkpoint.json; the same call resumes there. The folder also gets champion.json (what a recipe's
`encoder_options.genome` names), front.json and evolution.html.

It leaves out the fine-tuning of the champion's weights: that is MacroNet's pretraining, with the
mask frozen, when a recipe names the champion.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cppncripto_strategy.embeddings import interval_text
from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.evolution.evolved import Evolved, Transfer
from cppncripto_strategy.evolution.page import write_evolution_page
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.history.resample import resample
from cppncripto_strategy.foreign import sealed
from cppncripto_strategy.locks import LOCK_FILE, FileLock
from cppncripto_strategy.market import Market, load_market
from cppncripto_strategy.models.hyperneat.evolution import (
    Evolution,
    Generation,
    champion_json,
    load_run,
)
from cppncripto_strategy.models.hyperneat.fitness import SILENT, ProbeData, Score, evaluate
from cppncripto_strategy.models.hyperneat.front import Candidate, knee
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, FitnessKind
from cppncripto_strategy.models.hyperneat.substrate import STRIDE, Substrate
from cppncripto_strategy.models.hyperneat.workers import evaluator
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import (
    SessionSet,
    SessionSettings,
    SessionTable,
    build_sessions,
)
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.settings import EMBEDDING_SIZE
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import to_plain, write_json
from cppncripto_strategy.spreading.spread import Spread

log = logging.getLogger(__name__)

CHECKPOINT, CHAMPION, FRONT, PAGE = (
    "checkpoint.json",
    "champion.json",
    "front.json",
    "evolution.html",
)
# Settings of the encoder that shape the substrate; the others do not concern an evolution.
_SHAPE = ("channels", "taps", "dilations", "stride", "coordinates", "gated", "half_life")
# Random CPPNs that a transfer is compared with.
_TWINS = 3


class Watcher(Protocol):
    """Hears how an evolution gets on."""

    def begin(self, run: Evolution, pending: int) -> None:
        """A generation begins, with so many genomes to evaluate."""

    def scored(self) -> None:
        """One genome has its score."""

    def end(self, line: Generation, seconds: float, scored: int) -> None:
        """A generation has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What a recipe's evolution stands on: candles until `until_ms`, sessions from `from_ms`."""

    market: Market
    session: SessionSettings
    substrate: Substrate
    from_ms: int
    until_ms: int

    def probe_data(
        self, session: SessionSettings, substrate: Substrate, fitness: FitnessKind = "profile"
    ) -> ProbeData:
        """Days to judge on, for any long window, stride or (coarser) candle interval."""
        market = _resampled(self.market, self.session.interval_ms, session.interval_ms)
        tables = [
            _table(symbol, grid, session, self.until_ms)
            for symbol, grid in market.grids(session).items()
        ]
        sessions = SessionSet.between(tables, self.from_ms, self.until_ms)
        return ProbeData.of_sessions(sessions, self.until_ms, substrate.stride, fitness)


def prepare(recipe: Recipe) -> Ground:
    """Candles, span and substrate of a recipe's evolution.

    Raises
    ------
    CppnError
        As `market.load_market` and `preflight.checked_span` do.
    """
    market = load_market(recipe)
    span = checked_span(recipe, market)
    walk = recipe.walkforward
    first_bundle = calendar(span.start_ms, span.end_ms, walk.retrain_days)[0]
    until = first_bundle - walk.validate_days * DAY_MS
    session = recipe.learn_settings().session
    return Ground(
        market=market,
        session=session,
        substrate=substrate_of(recipe, session),
        from_ms=until - walk.train_days * DAY_MS,
        until_ms=until,
    )


def substrate_of(recipe: Recipe, session: SessionSettings) -> Substrate:
    """The substrate that the recipe's encoder `cppn` would paint; the defaults for any other."""
    values = recipe.macro.encoder_options if recipe.macro.encoder == "cppn" else {}
    shape = {key: values[key] for key in _SHAPE if key in values}
    shape.setdefault("stride", max(1, STRIDE // session.pool))
    row_ms = session.interval_ms * session.pool
    options = CPPNOptions.read({**shape, "interval_ms": row_ms}, "encoder 'cppn'")
    where = options.substrate_for(len(session.names), EMBEDDING_SIZE - session.n_statistics)
    return replace(where, features=session.names)


def _table(symbol: str, grid: CandleGrid, session: SessionSettings, until_ms: int) -> SessionTable:
    """Sessions of the candles that closed by `until_ms`."""
    grid = grid.rows(0, int(np.clip(grid.row_of(until_ms), 0, len(grid))))
    return build_sessions(symbol, grid, session)


def _resampled(market: Market, candle_ms: int, coarser_ms: int) -> Market:
    """The market's candles at a coarser interval, or as they are at their own."""
    if coarser_ms == candle_ms:
        return market
    interval, coarser = interval_text(candle_ms), interval_text(coarser_ms)
    parts = (market.candles, market.beside)
    traded, beside = (
        {symbol: resample(candles, interval, coarser) for symbol, candles in part.items()}
        for part in parts
    )
    return Market(traded, beside=beside)


def evolve(
    recipe: Recipe,
    settings: EvolutionSettings,
    folder: Path,
    spread: Spread | None = None,
    pick: str = "knee",
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> Evolved:
    """Evolve, or resume, and write the folder.

    Parameters
    ----------
    pick : "knee", "best" (highest probe), the number of connections of a point on the front, or
        "elites:N", the N fittest of the archive, which share out the vector.
    fresh : start again even where the folder holds a checkpoint.

    Raises
    ------
    BundleError
        When the folder's checkpoint is of other settings or candles, or another process evolves in
        the folder.
    TrainingError
        When the span is too short to judge on, or no genome expresses anything.
    """
    advice = "wait for it to end, or give this one another --out"
    with FileLock.take(folder / LOCK_FILE, f"the evolution {folder}", BundleError, advice):
        return _evolved(recipe, settings, folder, spread or Spread(), pick, fresh, watcher)


def _evolved(
    recipe: Recipe,
    settings: EvolutionSettings,
    folder: Path,
    spread: Spread,
    pick: str,
    fresh: bool,
    watcher: Watcher | None,
) -> Evolved:
    """`evolve` in a folder that is locked."""
    began = time.perf_counter()
    ground = prepare(recipe)
    data = ground.probe_data(ground.session, ground.substrate, settings.fitness)
    fingerprint = "".join([data.fingerprint(), *recipe.plugin_digests().values()])
    run = _start(folder / CHECKPOINT, settings, ground.substrate, fingerprint, fresh)
    genomes = _evolve(run, folder, spread, data, watcher)
    champion = choose(run, pick)
    result = Evolved(
        run=run,
        champion=champion,
        days=len(data),
        from_ms=ground.from_ms,
        until_ms=ground.until_ms,
        genomes=genomes,
        seconds=time.perf_counter() - began,
        transfers=transfers(run, champion[0], ground),
    )
    _write(result, folder, recipe)
    return result


def _start(
    path: Path, settings: EvolutionSettings, substrate: Substrate, fingerprint: str, fresh: bool
) -> Evolution:
    if path.exists() and not fresh:
        run = load_run(path, settings, substrate, fingerprint)
        log.info("resumed at generation %d of %d", run.generation, settings.generations)
        return run
    return Evolution.begin(settings, substrate, fingerprint)


def _evolve(
    run: Evolution, folder: Path, spread: Spread, data: ProbeData, watcher: Watcher | None
) -> int:
    """Run the generations that are left; returns how many genomes were evaluated."""
    genomes, left = 0, run.settings.generations - run.generation
    if not left:
        return 0
    with evaluator(spread, run.substrate, data, run.settings) as score:
        for _ in range(left):
            pending, began = run.pending(), time.perf_counter()
            if watcher is not None:
                watcher.begin(run, len(pending))
            scores = score(pending, _listener(watcher))
            line = run.advance(scores)
            write_json(folder / CHECKPOINT, sealed(to_plain(run.to_json())))
            genomes += len(pending)
            if watcher is not None:
                watcher.end(line, time.perf_counter() - began, len(pending))
    return genomes


def _listener(watcher: Watcher | None) -> Callable[[int, Score], None] | None:
    if watcher is None:
        return None
    hear = watcher.scored
    return lambda key, score: hear()


def choose(run: Evolution, pick: str) -> tuple[Candidate, ...]:
    """The champion: the front's knee, its best probe, its point of N connections, or N elites.

    Raises
    ------
    RecipeError
        When the front is empty, or has no such point.
    """
    if not run.front:
        raise RecipeError(
            "no genome expressed enough connections to be judged: give the evolution more "
            "generations or a larger population"
        )
    if pick in ("knee", "best"):
        return (run.front[knee(run.front, run.substrate.weights) if pick == "knee" else -1],)
    kind, _, number = pick.partition(":")
    if kind == "elites" and number.isdecimal() and int(number):
        return tuple(run.archive.elites(int(number)))
    counts = [str(c.score.connections) for c in run.front]
    if pick not in counts:
        raise RecipeError(
            f"the front has no point {pick!r}: give knee, best, elites:N, or one of these numbers "
            f"of connections: {', '.join(counts)}"
        )
    return (run.front[counts.index(pick)],)


def transfers(run: Evolution, champion: Candidate, ground: Ground) -> tuple[Transfer, ...]:
    """The champion painted on other windows, rows and candle intervals, beside random CPPNs.

    Every number is a probe on the span of the evolution, so the first row (where it evolved) is
    selected for and the others are not.
    """
    base, session = ground.substrate, ground.session
    day = session.day_candles
    days = session.long_window // day
    wider = replace(base, layers=tuple(replace(y, dilation=2 * y.dilation) for y in base.layers))
    places: list[tuple[str, SessionSettings, Substrate]] = [
        (f"as evolved: {days} days, rows of {base.stride} candles", session, base),
        (f"{2 * days} days", replace(session, long_window=2 * days * day), base),
        ("taps twice as far apart", session, wider),
    ]
    if days > 2:
        places.insert(1, ("2 days", replace(session, long_window=2 * day), base))
    if base.stride % 2 == 0:
        half = replace(base, stride=base.stride // 2)
        places.append((f"rows of {half.stride} candles", session, half))
    if session.pool == 1 and base.stride % 3 == 0 and day % 36 == 0:
        coarse_ms = 3 * session.interval_ms
        places.append(
            (
                f"candles of {coarse_ms // 60_000} minutes",
                replace(session, interval_ms=coarse_ms, long_window=session.long_window // 3),
                replace(base, interval_ms=coarse_ms, stride=base.stride // 3),
            )
        )
    return tuple(_transfer(run, champion, ground, *variant) for variant in places)


def _transfer(
    run: Evolution,
    champion: Candidate,
    ground: Ground,
    where: str,
    session: SessionSettings,
    substrate: Substrate,
) -> Transfer:
    data = ground.probe_data(session, substrate, run.settings.fitness)
    evolved = evaluate(champion.genome, substrate, data, run.settings)
    twins = _random_scores(substrate, data, run.settings)
    return Transfer(
        where=where,
        evolved=evolved.probe,
        random=float(np.mean([score.probe for score in twins])),
        connections=evolved.connections,
        weights=substrate.weights,
    )


def _random_scores(
    substrate: Substrate, data: ProbeData, settings: EvolutionSettings
) -> Sequence[Score]:
    """Scores of the first few random CPPNs that express anything."""
    scores: list[Score] = []
    seed = settings.seed
    while len(scores) < _TWINS:
        genome = random_genome(seed, inputs=substrate.inputs, outputs=substrate.outputs)
        score = evaluate(genome, substrate, data, settings)
        if score.fitness > SILENT:
            scores.append(score)
        seed += 1
    return scores


def _write(result: Evolved, folder: Path, recipe: Recipe) -> None:
    run = result.run
    write_json(folder / CHAMPION, champion_json(run, result.champion, result.until_ms))
    front = [champion_json(run, [point], result.until_ms) for point in run.front]
    write_json(folder / FRONT, front)
    write_evolution_page(folder / PAGE, result, recipe.name)


def summary(result: Evolved, folder: Path) -> dict[str, Any]:
    """The result as one JSON document, genomes aside."""
    run = result.run
    champion = result.champion[0]
    return {
        "folder": str(folder),
        "champion": str(folder / CHAMPION),
        "score": asdict(champion.score),
        "generation": champion.generation,
        "hidden_nodes": champion.genome.hidden,
        "weights": run.substrate.weights,
        "search": run.settings.search,
        "fitness": run.settings.fitness,
        "bank": len(result.champion),
        "front": [asdict(c.score) for c in run.front],
        "archive": [asdict(c.score) for c in run.archive.elites()],
        "history": [asdict(line) for line in run.history],
        "transfers": [asdict(t) for t in result.transfers],
        "days": result.days,
        "from_ms": result.from_ms,
        "until_ms": result.until_ms,
        "genomes": result.genomes,
        "seconds": result.seconds,
    }
