"""A file that arrives over HTTP, as a body or in a form, into the leaderboard's folder piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from tinytorch.benchmarks.tinymlperf.leaderboard.uploads import Receipt
from tinytorch.benchmarks.tinymlperf.web.site import Site

_PIECE = 2**20


async def take_body(site: Site, request: Request, token: str, now: datetime) -> Receipt:
    """Receive a request's body as a submission. Nothing of it is read before the token is known to be good."""
    participant = await site.participant(token)
    with site.board.files.receive() as incoming:
        async with _in_time(site):
            async for piece in request.stream():
                await run_in_threadpool(incoming.write, piece)
        return await site.take(participant, incoming, now)


async def take_form(site: Site, form: FormData, now: datetime) -> Receipt:
    """Receive the field `file` of a form as the submission of the one whose token is in the field `token`."""
    participant = await site.participant(text(form, "token"))
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise HTTPException(400, "no-file: choose the file that the export wrote")
    with site.board.files.receive() as incoming:
        while piece := await file.read(_PIECE):
            await run_in_threadpool(incoming.write, piece)
        return await site.take(participant, incoming, now)


@asynccontextmanager
async def form_of(site: Site, request: Request) -> AsyncIterator[FormData]:
    """Give a request's form. Its file lies in a temporary file until the end."""
    async with _in_time(site):
        form = await request.form(max_files=1, max_fields=4, max_part_size=4096)
    try:
        yield form
    finally:
        await form.close()


def text(form: FormData, name: str) -> str:
    """Return a field's text without space around it; "" if there is none."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


@asynccontextmanager
async def _in_time(site: Site) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(site.upload_seconds):
            yield
    except TimeoutError:
        detail = f"too-slow: an upload may take {site.upload_seconds:g} s"
        raise HTTPException(408, detail, headers={"Connection": "close"}) from None
