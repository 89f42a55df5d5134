"""`evolved.py universe`: candles of many symbols, chosen on earlier days, judged on later ones.

Genomes and networks learn from days before 2023-07 alone, once. A ridge regression of the coming
day's log variance on the embedding (128 numbers, with the scaler's statistics and the session's
terms, one penalty), refitted each quarter on all days before it, is judged from 2023-10 to 2024-08;
beside it one on HAR-X's terms and the last hours with what the encoder alone says, a penalty each,
where that must earn its place; and one on what the embedding holds without an encoder, the scaler's
statistics and the session's terms. A look at those days is counted.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from evolved_arms import Arms, connections
from universe import RECIPE, Universe, quarters, universe_of

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.trials import Trial, TrialLedger, fingerprint
from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.models.forecasting.panel import fit_rows
from cppncripto_strategy.models.hyperneat.fitness import ProbeData
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.recipe import load_recipe
from cppncripto_strategy.results import to_plain

CUT, FROM, UNTIL = "2023-07-01", "2023-10-01", "2024-09-01"
# Days of the choice that a design may be judged on before it is judged out of sample.
CHOICE = ("2022-07-01", "2023-07-01")
WINDOW_DAYS, ROW_CANDLES = 5, 12
SUBSTRATE = {"stride": 1, "interval_ms": ROW_CANDLES * 300_000, "half_life": 12.0}
TCN = {"channels": 16, "stride": 1, "dilations": [1, 2, 4, 8], "half_life": 12.0, "members": 3}
BLOCK_DAYS, RESAMPLES = 10, 2000
NO_ENCODER = "no encoder"


def universe_arms(
    seeds: Sequence[int],
    options: argparse.Namespace,
    settings: EvolutionSettings,
    emit: Callable[[dict[str, Any]], None],
) -> None:
    """All arms, one seed after another."""
    learn = load_recipe(RECIPE).learn_settings()
    session = replace(learn.session, long_window=WINDOW_DAYS * learn.session.day_candles)
    learn = replace(learn, session=session)
    cut, until = utc_to_ms(CHOICE[1] if not options.choice else CHOICE[0]), utc_to_ms(UNTIL)
    whole = universe_of(options.candles, learn, 0, until if not options.choice else utc_to_ms(CUT))
    span = (utc_to_ms(FROM), until) if not options.choice else (cut, utc_to_ms(CHOICE[1]))
    split = cut - learn.validate_days * DAY_MS
    if not options.choice:
        count_look(whole, options, settings)

    def build(encoder: str, values: dict[str, Any], seed: int) -> MacroNet:
        torch.manual_seed(seed)
        return build_macronet(encoder, len(session.names), session.n_statistics, values).eval()

    width = build("tcn", {}, seeds[0]).encoder.width
    where = CPPNOptions(**(SUBSTRATE | options.substrate))
    substrate = where.substrate_for(len(session.names), width)
    train, validation = whole.between(0, split), whole.between(split, cut)
    data = ProbeData.of_sessions(whole.between(0, cut), cut, substrate.stride, settings.fitness)
    arms = Arms(
        build, train, validation, data, substrate, "forecast", {"dropout": 0.3}, TCN, settings,
        options.searches.split(","), options.evaluations,
    )  # fmt: skip
    for seed in seeds:
        about = {"kind": "universe", "seed": seed}
        about |= {"symbols": len(whole.tables), "judged": len(data)}
        for line in linear_lines(whole, span):
            emit(about | line)
        for arm, net, cpu_s, more in arms.nets(seed, by_gradient=not options.named):
            line = about | {"arm": arm, "macro_cpu_s": round(cpu_s, 1), **more}
            emit(line | learned_line(whole, net, span))


def linear_lines(whole: Universe, span: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """What came, and the forecasts that need no encoder."""
    panel, rows = whole.panel, whole.judged(*span)
    yield {
        "arm": "truth",
        "day_ms": panel.day_ms[rows].tolist(),
        "symbol": panel.symbol[rows].tolist(),
        "usual": np.round(panel.usual[rows], 6).tolist(),
        "truth": np.round(panel.log_variance[rows], 6).tolist(),
    }
    sessions = SessionSet(whole.sessions.tables, whole.sessions.members)
    blocks = {
        "HAR-X": panel.har_x,
        "HAR-X and the last hours": panel.linear,
        NO_ENCODER: sessions.statistics().double().numpy(),
    }
    for name, block in blocks.items():
        yield {"arm": name, "forecast": forecast(whole, [block], span)}


def learned_line(whole: Universe, net: MacroNet, span: tuple[int, int]) -> dict[str, Any]:
    """Forecasts from the embedding, and from the terms with what the encoder alone says."""
    vectors = embedded(whole, net)
    alone = vectors[:, : net.encoder.width]
    return {
        "connections": connections(net.encoder),
        "forecast": forecast(whole, [vectors], span),
        "beside_hours": forecast(whole, [whole.panel.linear, alone], span),
    }


def count_look(whole: Universe, options: argparse.Namespace, settings: EvolutionSettings) -> None:
    """Leave a row of a look at days that were kept apart; a fingerprint tells looks apart."""
    what = {
        "learn": dataclasses.asdict(whole.settings),
        "evolution": dataclasses.asdict(settings),
        "substrate": SUBSTRATE | options.substrate,
        "searches": options.searches,
        "by_gradient": not options.named,
        "seeds": options.seeds,
    }
    symbols = ",".join(table.symbol for table in whole.tables)
    name = f"encoders of {len(whole.tables)} symbols, {FROM} to {UNTIL}, seeds {options.seeds}"
    days = (utc_to_ms(UNTIL) - utc_to_ms(FROM)) // DAY_MS
    mark = fingerprint(to_plain(what), 0, symbols)
    first = int(options.seeds.split("-")[0])
    TrialLedger(options.ledger).append(Trial(mark, "look", name, first, None, days))


@torch.no_grad()
def embedded(whole: Universe, net: MacroNet) -> FloatArray:
    """The embedding of every row of the panel: the encoder's part first."""
    sessions = SessionSet(whole.sessions.tables, whole.sessions.members)
    return embed_set(net, sessions, raw=True).double().numpy()


def forecast(whole: Universe, blocks: list[FloatArray], span: tuple[int, int]) -> list[float]:
    """Forecasts of the judged rows' log variance, refitted each quarter."""
    panel, rows = whole.panel, whole.judged(*span)
    center = np.full(len(panel), np.nan)
    for begin, end in quarters(*span):
        ridge = fit_rows(panel, blocks, panel.log_variance, whole.known(begin))
        mine = whole.judged(begin, end)
        center[mine] = ridge.predict([block[mine] for block in blocks], panel.symbol[mine])
    return [round(float(value), 6) for value in center[rows]]


def universe_table(lines: Sequence[dict[str, Any]]) -> str:
    """Out-of-sample R2 and MSE of every arm, seeds averaged, with paired intervals.

    Both seeds and days are drawn anew; an arm is compared on the seeds that it was tried with.
    """
    lines = [line for line in lines if line["kind"] == "universe"]
    losses = _Losses.of(lines)
    picks = [(None, np.arange(len(losses.base))), *losses.resampled()]
    head = "| ridge on | R2 | mean R2 of the symbols | MSE over that of HAR-X | less mean R2"
    head += " than evolved | more than no encoder | R2 beside the last hours | connections"
    rows = [f"{head} | genomes | fitness | seeds | CPU s |", "|---" * 12 + "|"]
    for arm in losses.arms:
        seeds = losses.seeds(arm)
        pooled = [losses.pooled(arm, seeds, pick) for pick in picks]
        anchor = [losses.pooled("HAR-X", seeds, pick) for pick in picks]
        ratio = [mine / other for mine, other in zip(pooled, anchor, strict=True)]
        mean = {
            name: np.array([losses.by_symbol(name, seeds, pick) for pick in picks])
            for name in (arm, "evolved", NO_ENCODER)
        }
        beside = ""
        if (arm, "beside_hours") in losses.errors:
            beside = f"{1 - losses.pooled(arm, seeds, picks[0], 'beside_hours'):.4f}"
        every = [line for line in lines if line["arm"] == arm]
        size, cpu, fitness = (
            np.mean([line.get(name, np.nan) for line in every])
            for name in ("connections", "macro_cpu_s", "fitness")
        )
        cells = [
            arm,
            f"{1 - pooled[0]:.4f}",
            f"{1 - mean[arm][0]:.4f}",
            _interval(ratio, 3),
            "" if arm == "evolved" else _interval(mean[arm] - mean["evolved"], 4),
            "" if arm == NO_ENCODER else _interval(mean[NO_ENCODER] - mean[arm], 4),
            beside,
            "" if np.isnan(size) else f"{size:,.0f}",
            str(every[0].get("genomes", "")),
            "" if np.isnan(fitness) else f"{fitness:.3f}",
            str(len(seeds)),
            "0" if np.isnan(cpu) else f"{cpu:.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _interval(values: Sequence[float] | FloatArray, digits: int) -> str:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return f"{values[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


Pick = tuple[FloatArray | None, IntArray]
"""Numbers from 0 to 1 that draw seeds (None: each once), and rows."""


@dataclass(frozen=True, eq=False)
class _Losses:
    """Squared errors of the judged rows.

    Parameters
    ----------
    errors : by arm and kind of forecast, then by seed, float64 (N,).
    base : float64 (N,), of the mean of the month before. day, symbol : int64 (N,).
    """

    errors: dict[tuple[str, str], dict[int, FloatArray]]
    base: FloatArray
    day: IntArray
    symbol: IntArray

    @classmethod
    def of(cls, lines: Sequence[dict[str, Any]]) -> _Losses:
        truth = next(line for line in lines if line["arm"] == "truth")
        day, symbol, usual, actual = (
            np.array(truth[name]) for name in ("day_ms", "symbol", "usual", "truth")
        )
        errors: dict[tuple[str, str], dict[int, FloatArray]] = {}
        for line in lines:
            for key in ("forecast", "beside_hours"):
                if key in line:
                    error = (np.array(line[key]) - actual) ** 2
                    errors.setdefault((line["arm"], key), {})[line["seed"]] = error
        return cls(errors, (actual - usual) ** 2, day, symbol)

    @property
    def arms(self) -> list[str]:
        return [arm for arm, key in self.errors if key == "forecast"]

    def seeds(self, arm: str) -> list[int]:
        return sorted(self.errors[arm, "forecast"])

    def _drawn(self, arm: str, seeds: list[int], pick: Pick, key: str) -> FloatArray:
        """Errors of the drawn rows, the drawn seeds averaged."""
        numbers, rows = pick
        if numbers is not None:
            seeds = [seeds[int(u * len(seeds))] for u in numbers[: len(seeds)]]
        return np.asarray(np.mean([self.errors[arm, key][s][rows] for s in seeds], axis=0))

    def pooled(self, arm: str, seeds: list[int], pick: Pick, key: str = "forecast") -> float:
        """1 - R2 over all rows."""
        return float(self._drawn(arm, seeds, pick, key).sum() / self.base[pick[1]].sum())

    def by_symbol(self, arm: str, seeds: list[int], pick: Pick) -> float:
        """1 - the mean R2 of the symbols."""
        symbol = self.symbol[pick[1]]
        sums = np.bincount(symbol, self._drawn(arm, seeds, pick, "forecast"))
        base = np.bincount(symbol, self.base[pick[1]])
        return float((sums[base > 0] / base[base > 0]).mean())

    def resampled(self) -> Iterator[Pick]:
        """A circular block bootstrap of days, in which symbols of one day stay together."""
        rng, days = np.random.default_rng(0), np.unique(self.day)
        rows = [np.flatnonzero(self.day == d) for d in days]
        most = max(map(len, self.errors.values()))
        for _ in range(RESAMPLES):
            starts = rng.integers(0, len(days), -(-len(days) // BLOCK_DAYS))
            chosen = ((starts[:, None] + np.arange(BLOCK_DAYS)).ravel() % len(days))[: len(days)]
            yield rng.random(most), np.concatenate([rows[d] for d in chosen])
