"""The evidence of a running strategy: its signals as shadow signals, its days as bets.

One bet for the account, or one per symbol. A day is weighed when the first candle of a later day is
seen, before that candle is decided on: what a decision knows is what had closed by then. Left out:
the bet itself (`evaluation.evidence`), and what a strategy makes of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.evidence import Bet, EvidenceSettings
from cppncripto_strategy.evaluation.shadow import DayResults, Measure, ShadowSignals, pooled
from cppncripto_strategy.feeds.clock import DAY_MS

log = logging.getLogger(__name__)

ACCOUNT = "account"
"""Name of the bet over all symbols of an account."""


class EvidenceMeter:
    """Evidence that a strategy's signals earn more than their costs; lives as long as a run.

    Parameters
    ----------
    settings : how evidence is weighed.
    measures : symbol -> how its signals are judged.
    waits : whether entries wait for evidence.

    Attributes
    ----------
    shadows : symbol -> its shadow signals.
    bets : "account", or each symbol -> its bet.
    rows : one mapping per bet and day that had a signal; see `results.RunResult`.
    """

    def __init__(
        self, settings: EvidenceSettings, measures: Mapping[str, Measure], waits: bool = False
    ) -> None:
        self.settings, self.waits = settings, waits
        self.shadows = {symbol: ShadowSignals(measure) for symbol, measure in measures.items()}
        names = list(measures) if settings.per == "symbol" else [ACCOUNT]
        self.bets = {name: Bet(settings, settings.needed(len(names))) for name in names}
        self.rows: list[dict[str, Any]] = []
        self.session_ms = -1

    def begin_day(self, session_ms: int) -> None:
        """Weigh the day before, now that a candle of a later one is here (00:00 UTC, ms)."""
        ended, self.session_ms = self.session_ms, session_ms
        days = {symbol: shadow.end_day() for symbol, shadow in self.shadows.items()}
        if ended < 0:
            return
        if self.settings.per == "account":
            days = {ACCOUNT: pooled(days.values())}
        for name, day in days.items():
            if day:
                self._weigh(name, ended, day)

    def _weigh(self, name: str, day_ms: int, day: DayResults) -> None:
        bet = self.bets[name]
        settled = bet.update(self.settings.clipped(day.mean_bps)) if day.net_bps else None
        self.rows.append(
            {
                "bet": name,
                "session_ms": day_ms,
                "signals": len(day.net_bps),
                "crossed": day.crossed,
                "incomplete": day.incomplete,
                "mean_net_bps": day.mean_bps,
                "stake": math.nan if settled is None else settled.stake,
                "wealth": bet.wealth if settled is None else settled.wealth,
                "closing": bet.closing if settled is None else settled.closing,
                "open": int(bet.open),
                "needed": bet.needed,
            }
        )

    def bet_of(self, symbol: str) -> Bet:
        """The bet that decides on a symbol's entries."""
        return self.bets[symbol if self.settings.per == "symbol" else ACCOUNT]

    def why_waiting(self, symbol: str) -> str:
        """Why no entry may be sent, for a person; empty where one may."""
        bet = self.bet_of(symbol)
        if bet.open or not self.waits:
            return ""
        owner = symbol if self.settings.per == "symbol" else "the account"
        return (
            f"evidence for {owner} is {bet.wealth:.3g} of the {bet.needed:.4g} needed: no entries"
        )

    def snapshot(self, bars: Mapping[str, int]) -> dict[str, Any]:
        """The whole state as plain values, rows left out.

        Parameters
        ----------
        bars : symbol -> number of its present bar.
        """
        return {
            "session_ms": self.session_ms,
            "bets": {name: bet.snapshot() for name, bet in self.bets.items()},
            "shadows": {name: s.snapshot(bars[name]) for name, s in self.shadows.items()},
        }

    def restore(self, plain: Mapping[str, Any], bars: Mapping[str, int]) -> None:
        """Continue from what `snapshot` gave, to the last bit."""
        self.session_ms = int(plain["session_ms"])
        for name, bet in self.bets.items():
            bet.restore(plain["bets"][name])
        for name, shadow in self.shadows.items():
            shadow.restore(plain["shadows"][name], bars[name])


def round_trip_cost_bps(broker: Any, data: Any) -> float:
    """What a round trip costs in an account: commission and slippage twice, bps of the price.

    Raises
    ------
    RecipeError
        When the broker charges something that is no share of the price.
    """
    info, p = broker.getcommissioninfo(data), broker.p
    share, again = (info.getcommission(1.0, price) / price for price in (1.0, 1024.0))
    if share != again or getattr(p, "slip_fixed", 0.0):
        raise RecipeError(
            "evidence is weighed in bps of the price, and this broker charges fixed amounts: give"
            " commission and slippage as shares of the price"
        )
    fee_bps, stated_bps = 1e4 * share, getattr(p, "fee_bps", None)
    if stated_bps is not None and share == stated_bps / 1e4:
        fee_bps = stated_bps  # the setting itself: a share times 1e4 may be an ulp off
    theirs = getattr(p, "slip_perc", 0.0)  # Backtrader's own comes instead of `slippage_bps`
    slippage_bps = 1e4 * theirs if theirs else getattr(p, "slippage_bps", 0.0)
    return float(2.0 * (fee_bps + slippage_bps))


def meter_of(strategy: Any, feeds: Sequence[tuple[Any, int]]) -> EvidenceMeter | None:
    """The meter of a strategy's account, by its params; None where no evidence can be counted.

    Parameters
    ----------
    strategy : a Backtrader strategy with the params evidence, evidence_settings, hold_candles and
        allow_short; its broker's costs count.
    feeds : each feed that is traded, and the milliseconds of its candles.

    Raises
    ------
    RecipeError
        When `evidence` is neither "trade" nor "wait"; and, where it is "wait", when nothing says
        how long a signal is held, no outcome could be known on its own day, feeds share a name, or
        the broker's costs are no share of the price. Where it is "trade", the log says so.
    """
    rule = strategy.p.evidence
    if rule not in ("trade", "wait"):
        raise RecipeError(f'evidence must be "trade" or "wait", got {rule!r}')
    settings = strategy.p.evidence_settings or EvidenceSettings()
    try:
        measures = _measures(strategy, feeds, settings)
    except RecipeError as reason:
        if rule == "wait":
            raise
        log.info("no evidence is counted: %s", reason)
        return None
    return EvidenceMeter(settings, measures, waits=rule == "wait")


def _measures(
    strategy: Any, feeds: Sequence[tuple[Any, int]], settings: EvidenceSettings
) -> dict[str, Measure]:
    p, names = strategy.p, [data._name for data, _ in feeds]
    horizon = settings.horizon or p.hold_candles
    if not horizon:
        raise RecipeError(
            "nothing says when a signal's outcome is due: give hold_candles, or"
            " evidence_settings=EvidenceSettings(horizon=...), in candles"
        )
    if horizon * max(step_ms for _, step_ms in feeds) >= DAY_MS:
        raise RecipeError(
            f"an outcome {horizon} candles later is never known on the day of its signal, and only"
            " those count as evidence: shorten the holding limit, or EvidenceSettings(horizon=...)"
        )
    if len(set(names)) < len(names):
        raise RecipeError(f"feeds share a name: {names}; give each its own")
    sells = settings.sides == "both" or bool(p.allow_short)
    return {
        data._name: Measure(horizon, step_ms, round_trip_cost_bps(strategy.broker, data), sells)
        for data, step_ms in feeds
    }
