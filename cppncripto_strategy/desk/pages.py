"""Pages for people: sessions, a session live, runs, comparisons, days, and what is stored."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from cppncripto_strategy.desk import days, figures, files, runs, stores
from cppncripto_strategy.desk.api import MAX_COMPARED, Id, Symbol
from cppncripto_strategy.desk.credentials import SIGNED_IN_S, Credentials
from cppncripto_strategy.desk.guard import Guard, address_of, cookie_name, cookie_of
from cppncripto_strategy.desk.library import Library, UnknownId
from cppncripto_strategy.desk.listing import CANDLES, EMBEDDINGS, RUN, TRIED
from cppncripto_strategy.desk.rendering import page, render
from cppncripto_strategy.desk.schema import Instant, SessionDetail
from cppncripto_strategy.desk.sessions import SessionWatch
from cppncripto_strategy.desk.settings import DeskSettings
from cppncripto_strategy.desk.sketch import sketch
from cppncripto_strategy.desk.streams import Streams
from cppncripto_strategy.feeds.clock import interval_to_ms

# A report is a page of its own: it may draw, and reach nothing of ours, not even our cookie.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; font-src data:;"
    " frame-ancestors 'none'"
)
RunIds = Annotated[list[str], Query(min_length=1, max_length=MAX_COMPARED)]


def page_router(
    library: Library, settings: DeskSettings, credentials: Credentials, guard: Guard
) -> APIRouter:
    """Every page, and what its script asks for."""
    router = APIRouter(include_in_schema=False)
    _add_door(router, settings, credentials, guard)
    streams = Streams(settings.limits.streams)
    guard.farewell = streams.stop
    _add_sessions(router, library, streams)
    _add_runs(router, library)
    _add_days(router, library)

    @router.get("/data")
    def data() -> Response:
        found = [stores.store(entry) for entry in library.listing.of(CANDLES)]
        files_of_days = [days.embedding_file(entry) for entry in library.listing.of(EMBEDDINGS)]
        tried = [runs.experiment(entry) for kind in TRIED for entry in library.listing.of(kind)]
        return page("data.html", stores=found, embeddings=files_of_days, experiments=tried)

    return router


def _add_door(
    router: APIRouter, settings: DeskSettings, credentials: Credentials, guard: Guard
) -> None:
    @router.get("/login")
    def login() -> Response:
        return page("login.html", words="")

    @router.post("/login")
    async def signing_in(request: Request) -> Response:
        try:
            form = parse_qs((await request.body()).decode("ascii"), max_num_fields=4)
        except ValueError:
            form = {}
        if not credentials.is_token(form.get("token", [""])[0].strip()):
            refusal = guard.failed(address_of(request.scope))
            return page("login.html", refusal.status, words="That is not the token.")
        response = RedirectResponse("/", 303)
        response.headers["set-cookie"] = _cookie(settings, credentials.sign_in(), int(SIGNED_IN_S))
        return response

    @router.post("/logout")
    async def signing_out(request: Request) -> Response:
        credentials.sign_out(cookie_of(request.scope, settings))
        response = RedirectResponse("/login", 303)
        response.headers["set-cookie"] = _cookie(settings, "", 0)
        return response

    @router.get("/static/{name}")
    def static(name: Annotated[str, Path(max_length=40)], request: Request) -> Response:
        try:
            return files.respond(name, request)
        except KeyError:
            raise UnknownId("there is no such file") from None


def _cookie(settings: DeskSettings, value: str, max_age_s: int) -> str:
    cookie: SimpleCookie = SimpleCookie()
    name = cookie_name(settings)
    cookie[name] = value
    rules = {"httponly": True, "samesite": "Strict", "path": "/", "max-age": max_age_s}
    for rule, held in {**rules, "secure": settings.secure}.items():
        cookie[name][rule] = held
    return cookie[name].OutputString()


def _add_sessions(router: APIRouter, library: Library, streams: Streams) -> None:
    @router.get("/")
    def sessions() -> Response:
        return page("sessions.html", sessions=library.sessions(), folder=library.name)

    @router.get("/sessions/{id}")
    def session(id: Id, symbol: Symbol = None) -> Response:
        detail = library.watch(id).detail()
        chosen = symbol if symbol in detail.symbols else next(iter(detail.symbols), "")
        drawn = sketch(_figure(library.watch(id), detail, chosen))
        return page("session.html", session=detail, symbol=chosen, sketch=drawn)

    @router.get("/sessions/{id}/view")
    def view(id: Id, symbol: Symbol = None) -> Response:
        return JSONResponse(session_view(library.watch(id), symbol or ""))

    @router.get("/sessions/{id}/live")
    async def live(id: Id) -> Response:
        watch = await asyncio.to_thread(library.watch, id)
        if not streams.free:
            return Response("too many pages are open", 503)
        return StreamingResponse(streams.of(watch), media_type="text/event-stream")


def session_view(watch: SessionWatch, symbol: str) -> dict[str, Any]:
    """What a live page shows now: its numbers as HTML, and its figure."""
    detail = watch.detail()
    html = render("now.html", session=detail, symbol=symbol)
    return {"html": html, "figure": _figure(watch, detail, symbol)}


def _figure(watch: SessionWatch, detail: SessionDetail, symbol: str) -> figures.Figure | None:
    if symbol not in detail.symbols:
        return None
    return figures.session_figure(watch.look(), symbol, interval_to_ms(detail.interval))


def _add_runs(router: APIRouter, library: Library) -> None:
    @router.get("/runs")
    def every_run() -> Response:
        return page("runs.html", runs=[runs.run(entry) for entry in library.listing.of(RUN)])

    @router.get("/runs/{id}")
    def one_run(id: Id) -> Response:
        detail = runs.run_detail(library.entry(RUN, id))
        return page("run.html", run=detail, metrics=list(flat(detail.metrics)))

    @router.get("/compare")
    def compared(run: RunIds) -> Response:
        found = runs.compare([library.entry(RUN, id) for id in run])
        query = "&".join(f"run={one.id}" for one in found.runs)
        drawn = sketch(figures.comparison_figure(found))
        return page("compare.html", found=found, query=query, sketch=drawn)

    @router.get("/compare/figure")
    def figure(run: RunIds) -> dict[str, Any]:
        found = runs.compare([library.entry(RUN, id) for id in run])
        return figures.comparison_figure(found)

    @router.get("/reports/{kind}/{id}")
    def report(kind: str, id: Id) -> Response:
        if kind not in (RUN, *TRIED):
            raise UnknownId("there are no such reports")
        content = runs.report(library.entry(kind, id))
        if content is None:
            raise UnknownId("it has no report")
        headers = {"content-security-policy": REPORT_POLICY}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)


def flat(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested numbers as (dotted name, value), at most two thousand; lists as their length."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += flat(value, f"{above}{name}.")
        elif isinstance(value, list):
            rows.append((f"{above}{name}", f"{len(value)} entries"))
        else:
            rows.append((f"{above}{name}", value))
    return rows[:2_000]


def _add_days(router: APIRouter, library: Library) -> None:
    @router.get("/days")
    def every_file() -> Response:
        found = [days.embedding_file(entry) for entry in library.listing.of(EMBEDDINGS)]
        if len(found) == 1 and not found[0].problem:
            return RedirectResponse(f"/days/{found[0].id}", 303)
        return page("files.html", embeddings=found)

    @router.get("/days/{id}")
    def one_file(id: Id, symbol: Symbol = None) -> Response:
        found = days.embedding_file(library.entry(EMBEDDINGS, id))
        chosen = symbol if symbol in found.symbols else ""
        return page("days.html", file=found, symbol=chosen)

    @router.get("/days/{id}/figure")
    def figure(id: Id, symbol: Symbol = None) -> dict[str, Any]:
        entry = library.entry(EMBEDDINGS, id)
        found = days.days_map(entry, library.listing.of(CANDLES), symbol or None)
        return {**figures.days_figure(found), "problem": found.problem}

    @router.get("/days/{id}/near")
    def near(
        id: Id,
        symbol: Annotated[str, Query(max_length=40)],
        day_ms: Annotated[int, Query(ge=0, le=2**43)],
    ) -> Response:
        entry, found = library.entry(EMBEDDINGS, id), library.listing.of(CANDLES)
        rows = days.near_days(entry, found, symbol, day_ms, 10)
        when = Instant.of(day_ms)
        return page("near.html", symbol=symbol, day=when, near=rows)
