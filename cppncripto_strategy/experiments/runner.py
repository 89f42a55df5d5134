"""Running the cells of an experiment: a changed recipe through walk-forward and backtest.

Bundles are kept in one cache for all experiments of a recipe, so arms that differ only in trading
(E4) train once, and so does an arm that several experiments share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import cppncripto_strategy
from cppncripto_strategy.arrays import IntArray
from cppncripto_strategy.class_labels import class_table
from cppncripto_strategy.codehash import closure_digest
from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.experiments.cells import Arm, CellOutcome, changed
from cppncripto_strategy.experiments.embedding_probes import probe_embedding
from cppncripto_strategy.feeds import planted_hits
from cppncripto_strategy.feeds.clock import Span, ms_to_utc
from cppncripto_strategy.judgement import Tables, judge
from cppncripto_strategy.market import (
    Market,
    load_market,
    session_tables,
    traded_span,
)
from cppncripto_strategy.memory import give_back
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.replay import traded


class RecipeRunner:
    """Runs cells of one recipe. Lives for a whole experiment; keeps the last market in memory.

    Parameters
    ----------
    cache : folder of finished bundles.
    """

    def __init__(self, recipe: Recipe, cache: Path) -> None:
        self.recipe = recipe
        self.cache = cache
        self._markets: dict[str, Market] = {}

    def __call__(self, arm: Arm, seed: int, progress: Progress) -> CellOutcome:
        """Train, trade and judge one arm under one seed."""
        torch.set_num_threads(1)
        recipe = changed(self.recipe, arm, seed)
        market = self._market(recipe)
        span = checked_span(recipe, market)
        settings = recipe.learn_settings(recipe.macro.enabled)
        tables = session_tables(market, settings.session)
        timeline = walk_forward(
            tables, span.start_ms, span.end_ms, settings, recipe.seed, self.cache, progress
        )
        first = timeline.bundles[0]
        probes = probe_embedding(first, tables, first.info.trained_until_ms, span.end_ms)
        del tables  # a pass makes its own, symbol by symbol
        give_back()
        progress(1, 1, "trading")
        passed = traded(recipe, market.every, timeline, span)
        return self._outcome(recipe, market, span, timeline, probes, passed.tables)

    def check(self, arms: Iterable[Arm]) -> None:
        """Refuse arms that could not mean anything, before the first of them is trained.

        Raises
        ------
        CppnError
            As `preflight.checked_span` does, naming the arm.
        """
        for arm in arms:
            recipe = changed(self.recipe, arm, self.recipe.seed)
            try:
                checked_span(recipe, self._market(recipe))
            except CppnError as cause:
                raise type(cause)(f"arm {arm.name!r}: {cause}") from cause

    def market(self) -> Market:
        """The candles of the recipe as it is, without an arm's changes."""
        return self._market(self.recipe)

    def _market(self, recipe: Recipe) -> Market:
        key = recipe.model_dump_json(
            include={"symbols", "interval", "timerange", "candles", "features"}
        )
        if key not in self._markets:
            self._markets = {key: load_market(recipe)}
        return self._markets[key]

    def _outcome(
        self,
        recipe: Recipe,
        market: Market,
        span: Span,
        timeline: BundleTimeline,
        probes: dict[str, float],
        tables: Tables,
    ) -> CellOutcome:
        # A cell needs no interval of its own: the comparison has them.
        judged = judge(recipe, tables, resamples=0)
        return CellOutcome(
            signals=tables["signals"],
            equity=tables["equity"],
            metrics=judged.metrics,
            validation_losses=[b.info.validation["loss"] for b in timeline.bundles],
            setups=setups_of(market),
            probes=probes,
            classes=class_table(recipe, market, span),
        )

    def identity(self, arm: Arm) -> str:
        """Hash of the arm's recipe, plugins, candles and code: what its cells follow from."""
        recipe = changed(self.recipe, arm, 0)
        candles = self._market(recipe).digest()
        parts = [recipe.to_plain(), recipe.plugin_digests(), candles, code_hash()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def about(self, command: str, seeds: list[int]) -> dict[str, Any]:
        """How the experiment was run, for its page."""
        market = self.market()
        span = traded_span(self.recipe, market)
        return {
            "command": command,
            "recipe": self.recipe.name,
            "symbols": list(self.recipe.symbols),
            "interval": self.recipe.interval,
            "traded": f"{ms_to_utc(span.start_ms)} to {ms_to_utc(span.end_ms)} UTC",
            "seeds": seeds,
            "horizon": self.recipe.label.horizon,
            "label_threshold_bps": self.recipe.label.threshold_bps,
            "costs_bps_per_side": self.recipe.broker.fee_bps + self.recipe.broker.slippage_bps,
            "candles_sha256": market.digest(),
            "version": cppncripto_strategy.__version__,
        }

    def notes(self) -> list[str]:
        """What a reader must know about a planted market."""
        market = self.market()
        if not market.planted:
            return []
        truth = next(iter(market.planted.values())).settings
        if truth.mu == 0:
            return ["The market is planted without any answer: whatever is found here is luck."]
        window = self.recipe.micro.short_window
        return [
            "The market is planted, a new one for each seed. Hit ratio at setups: at most"
            f" {100 * planted_hits.oracle_hit(truth):.1f} % knowing the regime, at most"
            f" {100 * planted_hits.micro_only_hit(truth, window):.1f} % from the last"
            f" {window} candles alone, for a network without a clock."
        ]


def setups_of(market: Market) -> Mapping[str, IntArray] | None:
    """Symbol -> close times of planted setups (UTC ms); None for real candles."""
    if not market.planted:
        return None
    return {
        symbol: truth.candles.open_time[truth.setup] + truth.settings.interval_ms
        for symbol, truth in market.planted.items()
    }


def code_hash() -> str:
    """SHA-256 over the sources a cell's numbers follow from, and torch's version.

    The import closure of this module: candles to bundles, replay and judgement. No page is in it.
    """
    code = f"{torch.__version__} {closure_digest(__name__)}"
    return hashlib.sha256(code.encode()).hexdigest()
