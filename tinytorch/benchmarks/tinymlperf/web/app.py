"""`create_app(leaderboard, check=...)`: the competition as a web application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from tinytorch.benchmarks.tinymlperf.clock import now
from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard, Refused
from tinytorch.benchmarks.tinymlperf.web import api, pages
from tinytorch.benchmarks.tinymlperf.web.guards import SECURITY_HEADERS, BodyLimit, SecurityHeaders
from tinytorch.benchmarks.tinymlperf.web.rates import Rates
from tinytorch.benchmarks.tinymlperf.web.site import STATUS, BadSubmission, Site

_FOLDER = Path(__file__).parent
_SMALL = 16 * 2**10  # bytes of a form without a file, and of what surrounds a file


def create_app(
    board: Leaderboard,
    *,
    check: Callable[[Path], str | None],
    clock: Callable[[], datetime] = now,
    titles: Mapping[str, str] | None = None,
    rates: Rates | None = None,
    upload_seconds: float = 300.0,
) -> FastAPI:
    """Return the application of one competition: pages for people, `/api` for programs.

    It stores what is sent and queues it; it never runs it. Addresses are those of the connection: behind a proxy, the
    server has to be told to trust the proxy's headers, or all requests count as one address's.

    Parameters
    ----------
    board
        The leaderboard; its competition has been created.
    check
        Looks at a file before it is queued, in a thread: None if it is well-formed, else "code: message".
    clock
        Tells the time, with its zone.
    titles
        What tasks are called on pages; their names where it says nothing.
    rates
        Who may ask how often.
    upload_seconds
        How long an upload may take.
    """
    site = Site(board, check, clock, titles or {}, rates or Rates(), upload_seconds)
    app = FastAPI(
        title="TinyMLPerf",
        summary="A competition whose scores are computed anew from what was submitted. Not affiliated with MLCommons.",
        docs_url=None,  # the pages that FastAPI brings load their scripts from another host
        redoc_url=None,
        openapi_url="/api/openapi.json",
        dependencies=[Depends(site.admit)],
    )
    app.include_router(api.router(site))
    app.include_router(pages.router(site))
    app.mount("/static", StaticFiles(directory=_FOLDER / "static"))
    app.add_middleware(BodyLimit, limit=lambda path: _SMALL + (board.files.max_bytes if path in UPLOADS else 0))
    app.add_middleware(SecurityHeaders)
    _handle_errors(app, site)
    return app


UPLOADS = ("/submit", "/api/submissions")


def _handle_errors(app: FastAPI, site: Site) -> None:
    """Answer every error with a code and a sentence: as JSON below /api, as a page elsewhere."""

    def answer(
        request: Request, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        headers = {"Cache-Control": "no-store", **(headers or {})}
        if request.url.path.startswith("/api/"):
            content = {"error": {"code": code, "message": message}}
            return JSONResponse(content, status, headers=headers)
        return pages.error(site, request, status, code, message, headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        status = STATUS[error.code]
        return answer(
            request, status, error.code, error.message, {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        )

    @app.exception_handler(BadSubmission)
    async def bad_submission(request: Request, error: BadSubmission) -> Response:
        return answer(request, 422, error.code, error.message)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        places = sorted({".".join(map(str, one["loc"])) for one in error.errors()})
        return answer(request, 422, "invalid-request", f"this cannot be read: {', '.join(places)}")

    @app.exception_handler(AnyHTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code, separator, message = str(error.detail).partition(": ")
        if not separator:
            code, message = f"http-{error.status_code}", f"{error.detail}."
        return answer(request, error.status_code, code, message, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # Of what went wrong only the server's log speaks. This answer leaves outside of the middleware.
        message = "something failed here; it is not your fault. Try again later."
        return answer(request, 500, "internal-error", message, SECURITY_HEADERS)
