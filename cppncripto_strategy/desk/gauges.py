"""Sessions as metrics for Prometheus, read from their journals at every scrape.

What only a session's process knows is not here, because no journal holds it: weight of its
requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from cppncripto_strategy.desk.library import Library
from cppncripto_strategy.desk.schema import Instant, SessionDetail
from cppncripto_strategy.desk.sessions import LATENCY_BOUNDS_S, SessionWatch

STATES = ("running", "stopped", "died", "unknown")
Kind = Literal["counter", "gauge"]
# Name -> kind, field of a session, what it says.
OF_SESSION: dict[str, tuple[Kind, str, str]] = {
    "rounds": ("counter", "rounds", "Rounds of candles recorded, warm-up included."),
    "gaps": ("gauge", "gaps", "Candles that the exchange never gave, and that no one withdrew."),
    "fills": ("counter", "fills", "Orders filled."),
    "orders_refused": ("counter", "refused", "Orders refused or cancelled, missed ones aside."),
    "orders_missed": ("counter", "missed", "Orders not sent: their candle was seen too late."),
    "starts": ("counter", "starts", "Starts of the session's process."),
    "reconnects": ("counter", "reconnects", "Connections that were lost and made again."),
    "lag_seconds": ("gauge", "lag_s", "From the last round's close to its last order."),
    "equity": ("gauge", "equity", "Value of the account, in its quote currency."),
    "cash": ("gauge", "cash", "Cash of the account, in its quote currency."),
    "return_ratio": ("gauge", "total_return", "Return since the session went live."),
    "drawdown_ratio": ("gauge", "drawdown", "Fall of the equity from its peak, now."),
    "max_drawdown_ratio": ("gauge", "max_drawdown", "Largest fall of the equity from its peak."),
    "silent_seconds": ("gauge", "silent_s", "Seconds since a candle was last written."),
    "last_round_timestamp_seconds": ("gauge", "last_round", "Close of the last round, UTC."),
}
OF_SYMBOL = {
    "score": ("score", "Score of the last candle, from -1 to 1."),
    "embedding_drift": ("drift", "Distance of the active embedding from those trained on."),
    "embedding_age_seconds": ("embedding_age_s", "Age of the active embedding at the last candle."),
    "position": ("position", "Quantity held, in the base currency."),
    "tradable": ("tradable", "1 where the last round might be traded on, else 0."),
    "stale": ("stale", "1 where the symbol's candle is late while others have theirs, else 0."),
}
OF_BET = {
    "evidence_wealth": ("wealth", "Wealth of the bet against these signals earning nothing."),
    "evidence_needed": ("needed", "Wealth at which there is evidence."),
    "evidence_open": ("open", "1 while there is evidence, else 0."),
}


class SessionCollector:
    """All sessions of a library, as prometheus_client collects them."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def collect(self) -> Iterable[Metric]:
        """Every metric with a sample per session, symbol or bet; what is not known has none."""
        watches = self._library.watches()
        details = [watch.detail() for watch in watches]
        yield from _states(details)
        yield from _of_sessions(details)
        yield _connected(details)
        yield _latency(watches)
        for name, (field, text) in OF_SYMBOL.items():
            family = GaugeMetricFamily(f"cppn_session_{name}", text, labels=["session", "symbol"])
            for detail in details:
                for now in detail.now:
                    _add(family, [detail.name, now.symbol], getattr(now, field))
            yield family
        for name, (field, text) in OF_BET.items():
            family = GaugeMetricFamily(f"cppn_session_{name}", text, labels=["session", "bet"])
            for detail in details:
                for bet in detail.evidence:
                    _add(family, [detail.name, bet.bet], getattr(bet, field))
            yield family


def metrics_router(library: Library) -> APIRouter:
    """`/metrics`."""
    router = APIRouter(include_in_schema=False)
    registry = CollectorRegistry()
    registry.register(SessionCollector(library))

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return router


def _states(details: list[SessionDetail]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "cppn_session_state", "1 for the state that the session is in, else 0.",
        labels=["session", "state"],
    )  # fmt: skip
    readable = GaugeMetricFamily(
        "cppn_session_readable", "0 where a file of the session is damaged, else 1.",
        labels=["session"],
    )  # fmt: skip
    for detail in details:
        for name in STATES:
            state.add_metric([detail.name, name], float(detail.state == name))
        readable.add_metric([detail.name], float(not detail.problem))
    yield state
    yield readable


def _connected(details: list[SessionDetail]) -> Metric:
    family = GaugeMetricFamily(
        "cppn_session_connected", "1 where a running session is connected to the exchange, else 0.",
        labels=["session"],
    )  # fmt: skip
    for detail in details:
        if detail.connection != "none":
            family.add_metric([detail.name], float(detail.connection == "connected"))
    return family


def _latency(watches: list[SessionWatch]) -> Metric:
    """Of every live round of a session, over all its starts."""
    family = HistogramMetricFamily(
        "cppn_session_decision_latency_seconds",
        "From the arrival of a round's last candle to its last order.",
        labels=["session"],
    )
    for watch in watches:
        folded = watch.look()
        if not folded.timed:
            continue
        up_to = list(accumulate(folded.latency_counts))
        bounds = [*(f"{bound:g}" for bound in LATENCY_BOUNDS_S), "+Inf"]
        family.add_metric([watch.entry.name], list(zip(bounds, up_to, strict=True)), folded.timed_s)
    return family


def _of_sessions(details: list[SessionDetail]) -> Iterator[Metric]:
    for name, (kind, field, text) in OF_SESSION.items():
        made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        family = made(f"cppn_session_{name}", text, labels=["session"])
        for detail in details:
            _add(family, [detail.name], getattr(detail, field))
        yield family


def _add(family: Metric, labels: list[str], value: float | Instant | None) -> None:
    if isinstance(value, Instant):
        value = value.ms / 1000
    if value is not None:
        family.add_metric(labels, float(value))  # type: ignore[attr-defined]
