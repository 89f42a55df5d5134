"""The API, `/api/v1`: everything a page shows, typed, in pages (`shared` gives them their ETags).

Everything here reads; a score is computed, and nothing of it is kept. Ids come from listings,
cursors from the page before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request

from cppncripto_strategy.desk import days, runs, stores
from cppncripto_strategy.desk.busy import RationedError
from cppncripto_strategy.desk.guard import Buckets, address_of
from cppncripto_strategy.desk.journals import Record, last_cursor, read_part
from cppncripto_strategy.desk.library import Library
from cppncripto_strategy.desk.listing import (
    CANDLES,
    EMBEDDINGS,
    RUN,
    SESSION,
    TRIED,
    Entry,
)
from cppncripto_strategy.desk.outlook import Outlooks
from cppncripto_strategy.desk.records import candle_of, decision_of, equity_of, fill_of
from cppncripto_strategy.desk.schema import (
    Candle,
    Comparison,
    Curve,
    Days,
    Decision,
    EmbeddingFile,
    EquityPoint,
    Event,
    Experiment,
    Fill,
    Forecast,
    Health,
    Model,
    NearDay,
    Page,
    Problem,
    Run,
    RunDetail,
    Score,
    ScoreRequest,
    Session,
    SessionDetail,
    Store,
)
from cppncripto_strategy.desk.scoring import Scorer
from cppncripto_strategy.desk.sessions import event_of

PREFIX = "/api/v1"
MAX_COMPARED = 12
SCORES_PER_S, SCORES_BURST = 1.0, 10
T = TypeVar("T")
M = TypeVar("M", bound=Model)
Id = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="An id of a listing.")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="Items at most.")]
Cursor = Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before.")]
Symbol = Annotated[str | None, Query(max_length=40, description="This symbol's only.")]
Last = Annotated[bool, Query(description="Begin at the newest `limit` lines instead.")]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not a request that this desk answers."},
    401: {"model": Problem, "description": "No token, or a wrong one."},
    404: {"model": Problem, "description": "There is nothing with this id."},
    422: {"model": Problem, "description": "A value is out of its range."},
    429: {"model": Problem, "description": "Too many requests, or too many wrong tokens."},
}
_BUSY: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "Others' requests are being computed."}
}


def api_router(library: Library) -> APIRouter:
    """Every route of the API."""
    router = APIRouter(prefix=PREFIX, responses=_REFUSALS)
    _add_sessions(router, library)
    _add_journals(router, library)
    _add_runs(router, library)
    _add_data(router, library)
    _add_scores(router, library)

    @router.get("/health", tags=["desk"])
    def health() -> Health:
        """The desk itself: whether it answers, since when, and how many sessions it follows."""
        return library.health()

    return router


def _add_sessions(router: APIRouter, library: Library) -> None:
    @router.get("/sessions", tags=["sessions"])
    def sessions(limit: Limit = 100, cursor: Cursor = 0) -> Page[Session]:
        """Paper sessions, running ones first."""
        some, after = _part(library.sessions(), cursor, limit)
        return Page(items=some, next=after)

    @router.get("/sessions/{id}", tags=["sessions"])
    def session(id: Id) -> SessionDetail:
        """A session, each of its symbols at its last candle, and its latest events."""
        return library.watch(id).detail()


def _add_journals(router: APIRouter, library: Library) -> None:
    def journal(
        id: str, name: str, part: tuple[int, int, bool], make: Callable[[Record], M | None]
    ) -> Page[M]:
        cursor, limit, last = part
        path = library.watch(id).entry.path / f"{name}.jsonl"
        start = last_cursor(path, limit) if last else cursor
        made: list[M] = []
        found = read_part(path, start, limit, lambda record: _keep(record, make, made))
        return Page(items=made, next=found.next, damaged=found.damaged)

    @router.get("/sessions/{id}/decisions", tags=["sessions"])
    def decisions(
        id: Id, limit: Limit = 100, cursor: Cursor = 0, symbol: Symbol = None, last: Last = False
    ) -> Page[Decision]:
        """How each candle was judged, oldest first."""
        part = (cursor, limit, last)
        return journal(id, "decisions", part, lambda record: decision_of(record, symbol))

    @router.get("/sessions/{id}/fills", tags=["sessions"])
    def fills(
        id: Id, limit: Limit = 100, cursor: Cursor = 0, symbol: Symbol = None, last: Last = False
    ) -> Page[Fill]:
        """Fills, refusals and cancellations, oldest first; missed orders are refusals."""
        return journal(id, "fills", (cursor, limit, last), lambda record: fill_of(record, symbol))

    @router.get("/sessions/{id}/equity", tags=["sessions"])
    def equity(
        id: Id, limit: Limit = 100, cursor: Cursor = 0, last: Last = False
    ) -> Page[EquityPoint]:
        """The account after every round, its warm-up included, oldest first."""
        return journal(id, "equity", (cursor, limit, last), equity_of)

    @router.get("/sessions/{id}/candles", tags=["sessions"])
    def candles(
        id: Id,
        symbol: Annotated[str, Query(max_length=40)],
        limit: Limit = 100,
        cursor: Cursor = 0,
        last: Last = False,
    ) -> Page[Candle]:
        """A symbol's candles in the order in which the session saw them."""
        return journal(
            id, "rounds", (cursor, limit, last), lambda record: candle_of(record, symbol)
        )

    @router.get("/sessions/{id}/events", tags=["sessions"])
    def events(id: Id, limit: Limit = 100, cursor: Cursor = 0, last: Last = False) -> Page[Event]:
        """Starts, stops, retraining and what the exchange did besides candles, oldest first."""
        return journal(id, "events", (cursor, limit, last), event_of)


def _keep(record: Record, make: Callable[[Record], M | None], made: list[M]) -> bool:
    """Whether a record is wanted; it is kept as what it was made into."""
    try:
        item = make(record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return False
    if item is not None:
        made.append(item)
    return item is not None


def _add_runs(router: APIRouter, library: Library) -> None:
    @router.get("/runs", tags=["runs"])
    def every_run(limit: Limit = 100, cursor: Cursor = 0) -> Page[Run]:
        """Backtests, and the reports of sessions, by name; failed ones with their reason."""
        return _page(library.listing.of(RUN), (cursor, limit), runs.run)

    @router.get("/runs/{id}", tags=["runs"])
    def one_run(id: Id) -> RunDetail:
        """A run with its recipe and every metric as it was written."""
        return runs.run_detail(library.entry(RUN, id))

    @router.get("/runs/{id}/equity", tags=["runs"])
    def run_equity(id: Id) -> Curve:
        """A run's equity over its first value, thinned to at most a thousand points."""
        return runs.curve(library.entry(RUN, id))

    @router.get("/compare", tags=["runs"])
    def compared(
        run: Annotated[list[str], Query(min_length=1, max_length=MAX_COMPARED)],
    ) -> Comparison:
        """Runs side by side: what differs in their recipes, then their curves."""
        return runs.compare([library.entry(RUN, id) for id in run])

    @router.get("/experiments", tags=["runs"])
    def experiments(limit: Limit = 100, cursor: Cursor = 0) -> Page[Experiment]:
        """Experiments' verdicts, and how far evolutions and searches over settings came."""
        found = [entry for kind in TRIED for entry in library.listing.of(kind)]
        return _page(found, (cursor, limit), runs.experiment)


def _add_data(router: APIRouter, library: Library) -> None:
    @router.get("/stores", tags=["data"])
    def every_store(limit: Limit = 20, cursor: Cursor = 0) -> Page[Store]:
        """Candle stores, and how complete each of their series is."""
        return _page(library.listing.of(CANDLES), (cursor, limit), stores.store)

    outlooks = Outlooks()

    @router.get("/stores/{id}/forecast", tags=["data"], responses=_BUSY)
    def forecast(id: Id, symbol: Annotated[str, Query(max_length=40)]) -> Forecast:
        """The coming day's volatility and range of a symbol, from the store's last 1,200 days."""
        return outlooks.of(library.entry(CANDLES, id), symbol)

    @router.get("/embeddings", tags=["data"])
    def embeddings(limit: Limit = 20, cursor: Cursor = 0) -> Page[EmbeddingFile]:
        """Files of embeddings: symbols, encoders and days."""
        return _page(library.listing.of(EMBEDDINGS), (cursor, limit), days.embedding_file)

    @router.get("/embeddings/{id}/days", tags=["data"])
    def days_map(id: Id, symbol: Symbol = None) -> Days:
        """Days on two principal components, and what followed each."""
        entry = library.entry(EMBEDDINGS, id)
        return days.days_map(entry, library.listing.of(CANDLES), symbol)

    @router.get("/embeddings/{id}/near", tags=["data"])
    def near(
        id: Id,
        symbol: Annotated[str, Query(max_length=40)],
        day_ms: Annotated[int, Query(ge=0, le=2**43, examples=[1709251200000])],
        count: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> list[NearDay]:
        """The past days most like a day, among every symbol's, and what followed them."""
        entry = library.entry(EMBEDDINGS, id)
        return days.near_days(entry, library.listing.of(CANDLES), symbol, day_ms, count)


def _add_scores(router: APIRouter, library: Library) -> None:
    scorer, buckets = Scorer(), Buckets(SCORES_PER_S, SCORES_BURST, time.monotonic)

    def scored(entry: Entry, asked: ScoreRequest, request: Request) -> Score:
        if not buckets.take(address_of(request.scope)):
            raise RationedError("too many scores are asked for: one a second, ten at once")
        return scorer.score(entry, asked)

    more: dict[int | str, dict[str, Any]] = {
        408: {"model": Problem, "description": "The body came too slowly."},
        413: {"model": Problem, "description": "The body is too large."},
        **_BUSY,
    }

    @router.post("/runs/{id}/score", tags=["scores"], responses=more)
    def run_score(id: Id, asked: ScoreRequest, request: Request) -> Score:
        """The score of a symbol's last candle by a run's networks; nothing of it is kept."""
        return scored(library.entry(RUN, id), asked, request)

    @router.post("/sessions/{id}/score", tags=["scores"], responses=more)
    def session_score(id: Id, asked: ScoreRequest, request: Request) -> Score:
        """The score of a symbol's last candle by a session's networks; nothing of it is kept."""
        return scored(library.entry(SESSION, id), asked, request)


def _part(items: Sequence[T], cursor: int, limit: int) -> tuple[list[T], int | None]:
    """A part of a list whose cursor is an index, and the cursor after it."""
    after = cursor + limit
    return list(items[cursor:after]), after if after < len(items) else None


def _page(entries: Sequence[Entry], part: tuple[int, int], make: Callable[[Entry], M]) -> Page[M]:
    """A page of entries, read as what they are."""
    some, after = _part(entries, *part)
    return Page(items=[make(entry) for entry in some], next=after)
