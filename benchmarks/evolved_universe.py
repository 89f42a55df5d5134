"""`evolved.py universe`: candles of many symbols, chosen on earlier days, judged on later ones.

Genomes and networks learn from days before 2023-07 alone, once. A ridge regression of the coming
day's log variance on the embedding (128 numbers, with the scaler's statistics and the session's
terms, one penalty), refitted each quarter on all days before it, is judged from 2023-10 to 2024-08;
beside it one on HAR-X's terms and the last hours with what the encoder alone says, a penalty each,
where that must earn its place.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from evolved_arms import Arms, connections
from universe import RECIPE, Universe, quarters, universe_of

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.models.forecasting.panel import fit_rows
from cppncripto_strategy.models.hyperneat.fitness import ProbeData
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.inputs.sessions import SessionSet
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.recipe import load_recipe

CUT, FROM, UNTIL = "2023-07-01", "2023-10-01", "2024-09-01"
# Days of the choice that a design may be judged on before it is judged out of sample.
CHOICE = ("2022-07-01", "2023-07-01")
WINDOW_DAYS, ROW_CANDLES = 5, 12
SUBSTRATE = {"stride": 1, "interval_ms": ROW_CANDLES * 300_000, "half_life": 12.0}
TCN = {"channels": 16, "stride": 1, "dilations": [1, 2, 4, 8], "half_life": 12.0, "members": 3}
BLOCK_DAYS, RESAMPLES = 10, 2000


def universe_arms(
    seed: int,
    options: argparse.Namespace,
    settings: EvolutionSettings,
    emit: Callable[[dict[str, Any]], None],
) -> None:
    """All arms with one seed."""
    learn = load_recipe(RECIPE).learn_settings()
    session = replace(learn.session, long_window=WINDOW_DAYS * learn.session.day_candles)
    learn = replace(learn, session=session)
    cut, until = utc_to_ms(CHOICE[1] if not options.choice else CHOICE[0]), utc_to_ms(UNTIL)
    whole = universe_of(options.candles, learn, 0, until if not options.choice else utc_to_ms(CUT))
    span = (utc_to_ms(FROM), until) if not options.choice else (cut, utc_to_ms(CHOICE[1]))
    split = cut - learn.validate_days * DAY_MS

    def build(encoder: str, values: dict[str, Any]) -> MacroNet:
        torch.manual_seed(seed)
        return build_macronet(encoder, len(session.names), session.n_statistics, values).eval()

    width = build("tcn", {}).encoder.width
    where = CPPNOptions(**(SUBSTRATE | options.substrate))
    substrate = where.substrate_for(len(session.names), width)
    train, validation = whole.between(0, split), whole.between(split, cut)
    data = ProbeData.of_sessions(whole.between(0, cut), cut, substrate.stride, settings.fitness)
    arms = Arms(
        build, train, validation, data, substrate, "forecast", {"dropout": 0.3}, TCN, settings,
        options.searches.split(","),
    )  # fmt: skip
    about = {"kind": "universe", "seed": seed, "symbols": len(whole.tables), "judged": len(data)}
    rows = whole.judged(*span)
    panel = whole.panel
    emit(
        about
        | {
            "arm": "truth",
            "day_ms": panel.day_ms[rows].tolist(),
            "symbol": panel.symbol[rows].tolist(),
            "usual": np.round(panel.usual[rows], 6).tolist(),
            "truth": np.round(panel.log_variance[rows], 6).tolist(),
        }
    )
    for name, blocks in (("HAR-X", [panel.har_x]), ("HAR-X and the last hours", [panel.linear])):
        emit(about | {"arm": name, "forecast": forecast(whole, blocks, span)})
    for arm, net, cpu_s, more in arms.nets(seed, by_gradient=not options.named):
        vectors = embedded(whole, net)
        line = about | {"arm": arm, "macro_cpu_s": round(cpu_s, 1), **more}
        line["connections"] = connections(net.encoder)
        line["forecast"] = forecast(whole, [vectors], span)
        alone = vectors[:, : net.encoder.width]
        line["beside_hours"] = forecast(whole, [panel.linear, alone], span)
        emit(line)


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
    """Out-of-sample R2 and MSE of every arm, seeds averaged, with paired intervals."""
    lines = [line for line in lines if line["kind"] == "universe"]
    truth = next(line for line in lines if line["arm"] == "truth")
    day, symbol, usual, actual = (
        np.array(truth[name]) for name in ("day_ms", "symbol", "usual", "truth")
    )
    picks = [np.arange(len(day)), *_resampled(day)]
    base = (actual - usual) ** 2
    arms = [arm for arm in dict.fromkeys(_name(line) for line in lines) if arm != "truth"]
    errors = {
        (arm, key): np.mean(
            [
                (np.array(line[key]) - actual) ** 2
                for line in lines
                if _name(line) == arm and key in line
            ],
            axis=0,
        )
        for arm in arms
        for key in ("forecast", "beside_hours")
        if any(key in line for line in lines if _name(line) == arm)
    }
    head = "| ridge on | R2 | mean R2 of the symbols | MSE over that of HAR-X | less R2"
    rows = [f"{head} than evolved | R2 beside the last hours | connections | CPU s |"]
    rows.append("|---" * 8 + "|")
    for arm in arms:
        error = errors[arm, "forecast"]
        own = [1 - error[symbol == s].sum() / base[symbol == s].sum() for s in np.unique(symbol)]
        ratio = [error[p].sum() / errors["HAR-X", "forecast"][p].sum() for p in picks]
        gap = [(error - errors["evolved", "forecast"])[p].sum() / base[p].sum() for p in picks]
        hours = errors.get((arm, "beside_hours"))
        beside = "" if hours is None else f"{1 - hours.sum() / base.sum():.4f}"
        mine = [line for line in lines if _name(line) == arm]
        size = np.mean([line.get("connections", 0) for line in mine])
        cpu = np.mean([line.get("macro_cpu_s", 0) for line in mine])
        r2 = 1 - error.sum() / base.sum()
        less = "" if arm == "evolved" else _interval(gap, 4)
        rows.append(
            f"| {arm} | {r2:.4f} | {np.mean(own):.4f} | {_interval(ratio, 3)} | {less} | {beside} "
            f"| {size:,.0f} | {cpu:.0f} |"
        )
    return "\n".join(rows)


def _name(line: dict[str, Any]) -> str:
    return str(line["arm"]).rstrip(" 12")


def _interval(values: Sequence[float], digits: int) -> str:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return f"{values[0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _resampled(day: IntArray) -> list[IntArray]:
    """Rows of a circular block bootstrap of days: symbols of one day stay together."""
    rng, days = np.random.default_rng(0), np.unique(day)
    rows = [np.flatnonzero(day == d) for d in days]
    picks = []
    for _ in range(RESAMPLES):
        starts = rng.integers(0, len(days), -(-len(days) // BLOCK_DAYS))
        chosen = ((starts[:, None] + np.arange(BLOCK_DAYS)).ravel() % len(days))[: len(days)]
        picks.append(np.concatenate([rows[d] for d in chosen]))
    return picks
