"""The pages: they need no script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool

from tinytorch.benchmarks.tinymlperf.leaderboard import OVERALL, State
from tinytorch.benchmarks.tinymlperf.leaderboard.export import to_csv
from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import Ranked
from tinytorch.benchmarks.tinymlperf.web.api import ranking
from tinytorch.benchmarks.tinymlperf.web.plot import history
from tinytorch.benchmarks.tinymlperf.web.receiving import form_of, take_form, text
from tinytorch.benchmarks.tinymlperf.web.site import Site

ROWS = 100  # of a ranking, on one page
STATES = {
    State.RECEIVED: "received",
    State.QUEUED: "waiting for a worker",
    State.LEASED: "being evaluated",
    State.SCORED: "scored",
    State.REJECTED: "rejected",
    State.INFRASTRUCTURE_FAILURE: "not evaluated: our machines failed; your quota was given back",
}


def number(value: float) -> str:
    """Write a score or a ratio with three or four digits that count.

    Examples
    --------
    >>> number(1234.4), number(123.4), number(92.46), number(2.0), number(0.03125)
    ('1,234', '123', '92.5', '2.00', '0.0312')
    """
    if value >= 100:
        return f"{value:,.0f}"
    digits = 2 if value <= 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}"


def moment(value: datetime) -> str:
    """Write a time in UTC to the minute."""
    return f"{value:%Y-%m-%d %H:%M} UTC"


def size(value: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> size(900), size(25_600), size(64 * 2**20)
    ('900 bytes', '25.0 KiB', '64.0 MiB')
    """
    if value < 2**10:
        return f"{value} bytes"
    return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"number": number, "moment": moment, "size": size, "path": lambda text: quote(text, safe="")}


def router(site: Site) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    written: dict[tuple[str, int], tuple[list[Ranked], Markup]] = {}  # the tables, each with the ranking that it shows

    def table(task: str, ranked: list[Ranked], page: int) -> Markup:
        """Return one page of a ranking, written anew only when the ranking is another."""
        shown, text = written.get((task, page), (None, Markup()))
        if shown is not ranked:
            rows = ranked[(page - 1) * ROWS : page * ROWS]
            text = Markup(_TEMPLATES.get_template("ranking.html").render(task=task, rows=rows))
            written[task, page] = ranked, text
        return text

    @routes.get("/")
    def overall(page: Annotated[int, Query(ge=1, le=10**6)] = 1) -> HTMLResponse:
        return leaderboard(OVERALL, page)

    @routes.get("/tasks/{task}")
    def leaderboard(task: str, page: Annotated[int, Query(ge=1, le=10**6)] = 1) -> HTMLResponse:
        ranked = ranking(site, task)
        pages = max(1, math.ceil(len(ranked) / ROWS))
        if page > pages:
            raise HTTPException(404, f"not-found: this ranking has {pages} pages")
        shown = {"table": table(task, ranked, page), "total": len(ranked), "page": page, "pages": pages}
        return _render(site, "leaderboard.html", here=task, task=task, **shown)

    @routes.get("/leaderboard.csv")
    def export(task: Annotated[str, Query(max_length=80)] = OVERALL) -> Response:
        name = quote(f"tinymlperf-{task}.csv", safe="")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return Response(to_csv(ranking(site, task)), media_type="text/csv; charset=utf-8", headers=headers)

    @routes.get("/participants/{pseudonym}")
    def participant(pseudonym: str) -> HTMLResponse:
        entries = site.entries(pseudonym)
        places = {
            task: one
            for task, ranked in site.board.standings().items()
            for one in ranked
            if one.entry.participant == pseudonym
        }
        plot = history(entries, site.title)
        return _render(site, "participant.html", pseudonym=pseudonym, entries=entries, places=places, plot=plot)

    @routes.get("/submit")
    def form() -> HTMLResponse:
        return _render(site, "submit.html", here="submit", max_bytes=site.board.files.max_bytes)

    @routes.post("/submit")
    async def submit(request: Request) -> Response:
        now = site.clock()
        async with form_of(site, request) as form:
            receipt = await take_form(site, form, now)
        return await run_in_threadpool(_private, site, "received.html", here="submit", receipt=receipt)

    @routes.get("/mine")
    def whose() -> HTMLResponse:
        return _render(site, "mine.html", here="mine", attempts=None)

    @routes.post("/mine")
    async def mine(request: Request) -> Response:
        async with form_of(site, request) as form:
            participant = await site.participant(text(form, "token"))
        attempts = await run_in_threadpool(site.board.attempts, participant)
        left = await run_in_threadpool(lambda: site.board.quota_left(participant, now=site.clock()))
        context = {"attempts": attempts, "pseudonym": participant.pseudonym, "left": left, "states": STATES}
        return await run_in_threadpool(_private, site, "mine.html", here="mine", **context)

    @routes.get("/queue")
    def queue() -> HTMLResponse:
        return _render(site, "queue.html", here="queue", queue=site.board.queue(), states=STATES)

    return routes


def error(
    site: Site, request: Request, status: int, code: str, message: str, headers: Mapping[str, str]
) -> HTMLResponse:
    """Return the page that says what went wrong. It asks the database for nothing."""
    template = _TEMPLATES.get_template("error.html")
    page = template.render(site=site, here="", rules=None, status=status, code=code, message=message)
    return HTMLResponse(page, status, headers=dict(headers))


def _render(site: Site, template: str, here: str = "", **context: Any) -> HTMLResponse:
    page = _TEMPLATES.get_template(template).render(site=site, here=here, rules=site.board.competition, **context)
    return HTMLResponse(page)  # a text would be checked for being one, in another thread


def _private(site: Site, template: str, here: str, **context: Any) -> HTMLResponse:
    """Return a page that no cache keeps."""
    page = _render(site, template, here, **context)
    page.headers["Cache-Control"] = "no-store"
    return page
