"""A session's networks: which bundle is active since when, and what they ask of the strategy.

Left out: training (`retraining`), and Cerebro (`trader`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.foreign import read_object, reading, require_int, sealed, unsealed
from cppncripto_strategy.indicators.micro import MicroScore, ScoredTogether
from cppncripto_strategy.market import Market, session_tables
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.preflight import check_live
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import write_json

TIMELINE_FILE = "timeline.json"


@dataclass(frozen=True, slots=True, eq=False)
class SessionTimeline(BundleTimeline):
    """Bundles of a session, each active from the rollover at which it was ready.

    Parameters
    ----------
    valid_from_ms : ascending, one per bundle, never before its trained_until_ms.
    """

    valid_from_ms: tuple[int, ...] = ()

    def active_in(self, session_ms: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the active bundle in each session, -1 where none may score it, int64 (D,)."""
        starts = np.array(self.valid_from_ms, dtype=np.int64)
        chosen = np.searchsorted(starts, np.asarray(session_ms), side="right") - 1
        return chosen.astype(np.int64)

    def seeds(self) -> list[tuple[int, NDArray[np.float64]]]:
        """Where thresholds start afresh, and with which scores."""
        return [
            (start, bundle.score_seed)
            for start, bundle in zip(self.valid_from_ms, self.bundles, strict=True)
        ]

    def with_bundle(self, bundle: Bundle, valid_from_ms: int) -> SessionTimeline:
        """The timeline with one more bundle at its end."""
        return SessionTimeline((*self.bundles, bundle), False, (*self.valid_from_ms, valid_from_ms))

    def save(self, session: Path) -> None:
        """Write the bundles and, last, when each is active."""
        rows = []
        for bundle, start in zip(self.bundles, self.valid_from_ms, strict=True):
            bundle.save(session / "bundles" / bundle.model_hash)
            rows.append({"bundle": bundle.model_hash, "valid_from_ms": start})
        write_json(session / "bundles" / TIMELINE_FILE, sealed({"bundles": rows}))

    @classmethod
    def of_session(cls, session: Path) -> SessionTimeline:
        """The timeline a session recorded.

        Raises
        ------
        SessionError
            When the session has none, they are not those it recorded, or the file was changed.
        """
        folder = session / "bundles"
        if not (folder / TIMELINE_FILE).exists():
            raise SessionError(f"{session} has no networks: it was never started")
        with reading(folder / TIMELINE_FILE, "timeline of bundles", SessionError):
            rows = unsealed(read_object(folder / TIMELINE_FILE))["bundles"]
            starts = tuple(require_int(row["valid_from_ms"]) for row in rows)
            bundles = tuple(Bundle.load(folder / row["bundle"]) for row in rows)
            for row, bundle in zip(rows, bundles, strict=True):
                if row["bundle"] != bundle.model_hash:
                    raise ValueError(f"{row['bundle']} holds the bundle {bundle.model_hash}")
        return cls(bundles, False, starts)


def strategy_options(
    recipe: Recipe, timeline: SessionTimeline, embeddings: Path | None = None
) -> dict[str, Any]:
    """Options of MacroMicroStrategy: those of a backtest of the same recipe.

    `embeddings` is where a live session keeps them, so that a restart does not compute them again;
    parity gets none, and computes all.
    """
    # A restart, its checks and parity must sum as the session does, whatever the machine.
    torch.set_num_threads(1)
    return {
        "score_factory": _Scores(timeline, embeddings),
        "seeds": timeline.seeds(),
        "untraded": recipe.beside,
        **recipe.strategy_params(),
    }


class _Scores:
    """Makes each symbol's MicroScore; those of one Cerebro are scored together."""

    def __init__(self, timeline: SessionTimeline, embeddings: Path | None) -> None:
        self._given = {"bundles": timeline, "cache": embeddings}
        self._run: Any = None
        self._together = ScoredTogether()

    def __call__(self, data: Any) -> MicroScore:
        if data._env is not self._run:  # a session that begins anew makes another Cerebro
            self._run, self._together = data._env, ScoredTogether()
        return MicroScore(data, together=self._together, **self._given)


def todays_bundle(
    recipe: Recipe, market: Market, now_ms: int, cache: Path | None, progress: Progress | None
) -> BundleTimeline:
    """The bundle that the recipe's calendar has active today; trained when not in the cache.

    Raises
    ------
    TrainingError
        When the candles do not reach back, or up to today, far enough, or could not mean anything.
    """
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    midnight_ms = now_ms // DAY_MS * DAY_MS
    check_live(recipe, market, midnight_ms)
    settings = recipe.learn_settings(recipe.macro.enabled)
    tables = session_tables(market, settings.session)
    return walk_forward(
        tables, midnight_ms, midnight_ms + 1, settings, recipe.seed, cache, progress
    )
