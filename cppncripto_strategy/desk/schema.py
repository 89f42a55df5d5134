"""What readers return and the API answers: one model per thing that a person looks at.

Every time is an `Instant`: UTC milliseconds and the same in ISO 8601. A number that is not known is
null, never 0. Returns and drawdowns are fractions (0.01 is one per cent).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")


def _known(value: Any) -> Any:
    """NaN and infinities are unknown; so is what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


Number = Annotated[float | None, BeforeValidator(_known)]
Count = Annotated[int, Field(ge=0)]
# More candles than these in one request are refused.
MOST_CANDLES = 20_000
Times = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**43)]], Field(min_length=1, max_length=MOST_CANDLES)
]
Prices = Annotated[
    list[Annotated[float, Field(ge=0, allow_inf_nan=False)]],
    Field(min_length=1, max_length=MOST_CANDLES),
]


class Model(BaseModel):
    """Frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Instant(Model):
    """A moment: UTC milliseconds, and ISO 8601."""

    ms: int = Field(examples=[1716206700000])
    iso: str = Field(examples=["2024-05-20T12:05:00.000Z"])

    @classmethod
    def of(cls, ms: int | float | None) -> Instant | None:
        """The moment of UTC milliseconds; None for None and for what no calendar holds."""
        if ms is None or isinstance(ms, bool) or not isinstance(ms, int | float):
            return None
        try:
            moment = datetime.fromtimestamp(ms / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            return None
        text = moment.isoformat(timespec="milliseconds").removesuffix("+00:00")
        return cls(ms=int(ms), iso=f"{text}Z")


class Item(Model):
    """One thing under the folder: its kind, the id that addresses it, and what is wrong with it."""

    id: str = Field(pattern="^[0-9a-f]{16}$", examples=["3f1c9a2b7d0e4f58"])
    kind: str = Field(examples=["session"])
    name: str = Field(description="Path below the folder.", examples=["paper/real"])
    problem: str = Field(default="", description="Why it could not be read; empty when it could.")


class Evidence(Model):
    """How a bet stands: wealth against the threshold of evidence."""

    bet: str
    wealth: Number
    needed: Number
    open: bool
    session: Instant | None


class Session(Item):
    """A paper session as its journals tell it.

    `state` is running (its process holds the folder), stopped (it said so), died (it did not), or
    unknown (its process is on another machine).
    """

    state: Literal["running", "stopped", "died", "unknown"] = "unknown"
    symbols: list[str] = []
    interval: str = ""
    created: Instant | None = None
    live_from: Instant | None = None
    last_round: Instant | None = None
    silent_s: Number = Field(default=None, description="Seconds since the last candle was written.")
    rounds: Count = 0
    gaps: Count = 0
    withdrawn: Count = 0
    fills: Count = 0
    refused: Count = 0
    missed: Count = 0
    starts: Count = 0
    reconnects: Count = Field(default=0, description="Connections that were lost and made again.")
    connection: Literal["connected", "connecting", "lost", "none"] = Field(
        default="none", description="Of the session's process to the exchange; none without one."
    )
    latency_s: Number = Field(
        default=None,
        description="Median seconds from a round's last candle to its last order, last 500 rounds.",
    )
    latency_p99_s: Number = Field(default=None, description="99th percentile of the same.")
    lag_s: Number = Field(
        default=None,
        description="Seconds from the last round's close to its last order, by the exchange.",
    )
    equity: Number = None
    cash: Number = None
    total_return: Number = None
    drawdown: Number = None
    max_drawdown: Number = None
    next_rollover: Instant | None = None
    evidence: list[Evidence] = []


class SymbolNow(Model):
    """A symbol at its last candle."""

    symbol: str
    close: Number
    close_time: Instant | None
    score: Number
    upper: Number
    lower: Number
    drift: Number
    embedding_age_s: Number
    position: Number
    tradable: bool = Field(description="Whether the last round shown might be traded on.")
    stale: bool = Field(description="Whether its candle is late while others have theirs.")


class Event(Model):
    """Something a session noted besides candles; `facts` are as it wrote them."""

    kind: str
    at: Instant | None
    what: str = Field(description="The event in words, where there are any.")
    facts: dict[str, Any]


class SessionDetail(Session):
    """A session with its symbols and its latest events, newest first."""

    now: list[SymbolNow] = []
    events: list[Event] = []


class Decision(Model):
    """One candle of one symbol as it was judged; `signal` is 1 (buy), -1 (sell) or 0."""

    symbol: str
    close_time: Instant | None
    close: Number
    score: Number
    score_zero: Number
    p_buy: Number
    p_sell: Number
    upper: Number
    lower: Number
    signal: Number
    drift: Number
    embedding_age_s: Number


class Fill(Model):
    """A fill, refusal or cancellation; prices in quote currency, quantity in base currency."""

    symbol: str
    side: str
    status: str
    reason: str
    detail: str
    created: Instant | None
    executed: Instant | None
    quantity: Number
    price: Number
    notional: Number
    fee: Number
    reference_price: Number


class EquityPoint(Model):
    """The account after a round."""

    close_time: Instant | None
    equity: Number
    cash: Number


class Candle(Model):
    """One closed candle as a session saw it."""

    symbol: str
    open_time: Instant | None
    close_time: Instant | None
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number


class Page(Model, Generic[T]):
    """A part of a list. `next` is the cursor of the part after it; null at the end."""

    items: list[T]
    next: int | None = None
    damaged: Count = Field(
        default=0, description="Lines here that could not be read and were left out."
    )


class Run(Item):
    """A backtest's results, or a session's."""

    recipe: str = ""
    created: str = ""
    symbols: list[str] = []
    interval: str = ""
    start: Instant | None = None
    end: Instant | None = None
    total_return: Number = None
    cagr: Number = None
    sharpe: Number = None
    max_drawdown: Number = None
    benchmark_return: Number = None
    without_macro_return: Number = None
    trades: Number = None
    evidence: str = ""
    evidence_open: bool | None = None
    trials: Number = None
    report: bool = False


class RunDetail(Run):
    """A run with its recipe as TOML and every metric as it was written."""

    recipe_toml: str = ""
    metrics: dict[str, Any] = {}


class Difference(Model):
    """A recipe's key whose value differs between runs; null where a recipe lacks it."""

    key: str
    values: list[str | None]


class Curve(Model):
    """A run's equity, thinned; divided by its first value."""

    id: str
    name: str
    time_ms: list[int]
    growth: list[float]
    problem: str = ""


class Comparison(Model):
    """Runs side by side: what differs in their recipes, then their curves."""

    runs: list[Run]
    differences: list[Difference]
    curves: list[Curve]


class Experiment(Item):
    """An experiment's verdicts, or the state of an evolution or a search, in words."""

    title: str = ""
    lines: list[str] = []
    report: bool = False


class Series(Model):
    """One symbol and interval of a candle store."""

    symbol: str
    interval: str
    first: Instant | None = None
    last: Instant | None = None
    candles: Count = 0
    expected: Count = 0
    holes: Count = 0
    problem: str = ""


class Store(Item):
    """A candle store and how complete its series are."""

    series: list[Series] = []


class EmbeddingFile(Item):
    """A file of embeddings: days per symbol and encoder."""

    symbols: list[str] = []
    encoders: list[str] = []
    days: Count = 0
    first: Instant | None = None
    last: Instant | None = None


class Day(Model):
    """A day on the map; `day_return` and volatility are of the day itself: what followed."""

    symbol: str
    day: Instant | None
    x: float
    y: float
    in_sample: bool
    day_return: Number
    realised_volatility: Number


class Days(Item):
    """Embeddings on their first two principal components, and the variance those explain."""

    encoder: str = ""
    explained: list[float] = []
    days: list[Day] = []


class NearDay(Model):
    """A past day, how far its embedding is (Euclidean), and what followed."""

    symbol: str
    day: Instant | None
    distance: float
    day_return: Number
    realised_volatility: Number


class Range(Model):
    """A quantity of the coming day: its mean and the bounds of its interval, as fractions."""

    expected: Number
    low: Number
    high: Number


class Forecast(Model):
    """What is expected of a symbol's coming UTC day; nothing about its direction.

    Volatility is the root of the day's summed squared log returns, range is ln(high / low). `level`
    is the share of days that an interval should hold; `..._held` is the share of `past_days` that
    it did hold, each predicted by what was known then.
    """

    symbol: str
    day: Instant | None
    interval: str
    volatility: Range
    range: Range
    annual_volatility: Number
    usual_volatility: Number
    level: Number
    inputs: str
    market: str | None
    learned_days: Count
    learned_from: Instant | None
    volatility_held: Number
    range_held: Number
    past_days: Count


class Columns(Model):
    """Candles as columns of one length, oldest first; gaps are left out, not filled."""

    open_time_ms: Times = Field(examples=[[1709251200000, 1709251500000]])
    open: Prices = Field(examples=[[100.0, 101.0]])
    high: Prices = Field(examples=[[102.0, 101.5]])
    low: Prices = Field(examples=[[99.5, 100.0]])
    close: Prices = Field(examples=[[101.0, 100.5]])
    volume: Prices = Field(examples=[[12.0, 7.5]])
    taker_buy_volume: Prices | None = None


class ScoreRequest(Model):
    """The last candles of a symbol, and of the market symbol where the networks read one."""

    symbol: str = Field(min_length=1, max_length=40, examples=["BTCUSDT"])
    candles: Columns
    market: Columns | None = None


class Score(Model):
    """What the networks make of the last candle; `signal` is 1 (buy), -1 (sell) or 0.

    The thresholds are trailing quantiles of the active bundle's validation scores and of its
    `own_scores` on the candles that were sent: the more of them, the nearer to a session's.
    """

    symbol: str
    close_time: Instant | None
    bundle: str
    trained_until: Instant | None
    score: Number
    score_zero: Number
    p_buy: Number
    p_sell: Number
    upper: Number
    lower: Number
    signal: int
    drift: Number
    embedding_age_s: Number
    own_scores: Count


class Health(Model):
    """The desk itself."""

    status: Literal["ok"]
    version: str
    uptime_s: float
    sessions: Count
    running: Count


class Problem(Model):
    """Why a request was refused, and what to do."""

    detail: str = Field(examples=["there is no session 0123456789abcdef"])
