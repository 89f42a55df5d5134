"""The desk as one application: API, pages, metrics; before them shared answers and the guard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from cppncripto_strategy import __version__
from cppncripto_strategy.desk.api import PREFIX, api_router
from cppncripto_strategy.desk.busy import BusyError, RationedError
from cppncripto_strategy.desk.credentials import Credentials
from cppncripto_strategy.desk.gauges import metrics_router
from cppncripto_strategy.desk.guard import API, Guard
from cppncripto_strategy.desk.journals import CursorError
from cppncripto_strategy.desk.library import Library, UnknownId
from cppncripto_strategy.desk.pages import page_router
from cppncripto_strategy.desk.rendering import page
from cppncripto_strategy.desk.settings import DeskSettings
from cppncripto_strategy.desk.shared import Shared
from cppncripto_strategy.errors import CppnError

log = logging.getLogger(__name__)

DESCRIPTION = """Read-only: what paper sessions, backtests and candle stores left under one folder.

Every time is in UTC milliseconds and in ISO 8601; a number that is not known is null. Lists come in
pages: ask again with `cursor` set to `next`. Answers carry an ETag: send it as `If-None-Match`.
"""


def build(settings: DeskSettings, credentials: Credentials) -> Guard:
    """The whole desk, guarded."""
    library = Library(settings.folder)
    app = _api(library)
    guard = Guard(Shared(app, library), settings, credentials)
    app.include_router(page_router(library, settings, credentials, guard))
    app.include_router(metrics_router(library))
    _answer_errors(app, settings)
    return guard


def document(folder: Path) -> dict[str, Any]:
    """The OpenAPI document, as a desk over the folder serves it."""
    return _api(Library(folder)).openapi()


def _api(library: Library) -> FastAPI:
    app = FastAPI(
        title="cppncripto-strategy desk",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        # Their pages ask other hosts for scripts.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(api_router(library))
    _describe_token(app)
    return app


def _answer_errors(app: FastAPI, settings: DeskSettings) -> None:
    """Our errors and FastAPI's as one shape: {"detail": "..."}, or a page that says the same."""

    def answering(status: int) -> Any:
        def answer(request: Request, error: Exception) -> Response:
            # Where the folder lies on the disk is nobody's business.
            words = _words(error).replace(f"{settings.folder}/", "")
            if request.url.path.startswith(API):
                return JSONResponse({"detail": words}, status)
            return page("problem.html", status, title="Not here", words=words)

        return answer

    app.add_exception_handler(UnknownId, answering(404))
    for kind in (CursorError, RequestValidationError, CppnError):
        app.add_exception_handler(kind, answering(422))
    app.add_exception_handler(RationedError, answering(429))
    app.add_exception_handler(BusyError, answering(503))
    app.add_exception_handler(Exception, answering(500))


def _words(error: Exception) -> str:
    if isinstance(error, RequestValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
    if isinstance(error, CppnError | CursorError | UnknownId | BusyError | RationedError):
        return str(error)
    log.error("a request failed: %s", type(error).__name__, exc_info=error)
    return "the desk failed here; its log says why"


def _describe_token(app: FastAPI) -> None:
    """Say in the OpenAPI document that the guard asks for the token."""
    made = app.openapi

    def described() -> dict[str, Any]:
        document = made()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        document["security"] = [{"token": []}]
        return document

    app.openapi = described  # type: ignore[method-assign]
