"""The JSON interface, below /api; /api/openapi.json describes it."""

# No annotations from the future here: FastAPI has to see those that name functions inside of `router`.

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from tinytorch.benchmarks.tinymlperf.leaderboard import OVERALL, Refusal, Refused, State
from tinytorch.benchmarks.tinymlperf.leaderboard.export import records
from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import Entry, Ranked
from tinytorch.benchmarks.tinymlperf.leaderboard.tables import Participant
from tinytorch.benchmarks.tinymlperf.leaderboard.views import Attempt
from tinytorch.benchmarks.tinymlperf.web.receiving import take_body
from tinytorch.benchmarks.tinymlperf.web.site import Site


class Problem(BaseModel):
    """A short code that stays the same, and a sentence for people."""

    code: str
    message: str


class Failure(BaseModel):
    """The body of every answer that is an error."""

    error: Problem


class Rules(BaseModel):
    """The competition: until when, how many new submissions in a day (UTC), how large, for which tasks."""

    name: str
    tasks: list[str]
    deadline: datetime
    daily_quota: int
    max_bytes: int


class Row(BaseModel):
    """One line of a ranking. The scores are 1000 for the reference; ratios and quality are of single tasks alone."""

    rank: int
    tied: bool
    participant: str
    task: str
    passed: bool
    score: float
    score_low: float
    score_high: float
    deterministic_score: float
    quality: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    flops_ratio: float | None
    bytes_ratio: float | None
    activation_ratio: float | None
    received: datetime
    submission: int


class Ranking(BaseModel):
    """Everybody's best score for one task, or for all together ("overall")."""

    task: str
    ranking: list[Row]


class Scored(BaseModel):
    """A scored submission."""

    task: str
    passed: bool
    quality: float | None
    score: float
    score_low: float
    score_high: float
    deterministic_score: float


class Own(BaseModel):
    """A submission as its owner sees it."""

    submission: int
    content_hash: str
    size: int
    received: datetime
    state: State
    code: str | None
    message: str | None
    result: Scored | None


class Received(BaseModel):
    """What is said of a file that was sent. `new` is false if the same file had come before: that costs no quota."""

    submission: int
    content_hash: str
    received: datetime
    state: State
    new: bool
    quota_left: int


class Waiting(BaseModel):
    """How many submissions are in each state, and when the oldest that waits was received."""

    states: dict[State, int]
    oldest: datetime | None


class Health(BaseModel):
    """That the database answers."""

    status: str


_BEARER = HTTPBearer(auto_error=False, description="A participant's token.")
_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Failure}, "5XX": {"model": Failure}}


def router(site: Site) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/api", responses=_ERRORS)

    def token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> str:
        if credentials is None:
            raise Refused(Refusal.UNKNOWN_TOKEN, "send your token in a header: Authorization: Bearer TOKEN")
        return credentials.credentials

    async def participant(token: Annotated[str, Depends(token)]) -> Participant:
        return await site.participant(token)

    @routes.get("/health")
    def health() -> Health:
        """Ask the database for something."""
        _ = site.board.competition
        return Health(status="ok")

    @routes.get("/competition")
    def competition() -> Rules:
        """Return the rules as they stand."""
        rules = site.board.competition
        return Rules(
            name=rules.name,
            tasks=rules.tasks,
            deadline=rules.deadline,
            daily_quota=rules.daily_quota,
            max_bytes=site.board.files.max_bytes,
        )

    @routes.get("/leaderboard")
    def leaderboard(task: Annotated[str, Query(max_length=80)] = OVERALL) -> Ranking:
        """Return the ranking for one task, or for all together."""
        return Ranking(task=task, ranking=[Row(**record) for record in records(ranking(site, task))])

    @routes.get("/participants/{pseudonym}")
    def participants(pseudonym: str) -> list[Scored]:
        """Return all that was scored of one participant, in the order of receipt."""
        return [_scored(entry) for entry in site.entries(pseudonym)]

    @routes.get("/queue")
    def queue() -> Waiting:
        """Return how many submissions are where."""
        found = site.board.queue()
        return Waiting(states=dict(found.counts), oldest=found.oldest)

    @routes.post("/submissions", status_code=201, openapi_extra=_FILE, responses={200: {"model": Received}})
    async def submit(request: Request, response: Response, token: Annotated[str, Depends(token)]) -> Received:
        """Send a file: 201 if it is queued now, 200 if the same file had come before."""
        receipt = await take_body(site, request, token, site.clock())
        response.status_code = 201 if receipt.new else 200
        response.headers["Cache-Control"] = "no-store"
        return Received(**vars(receipt))

    @routes.get("/submissions")
    def submissions(response: Response, participant: Annotated[Participant, Depends(participant)]) -> list[Own]:
        """Return your own submissions, the last one first."""
        response.headers["Cache-Control"] = "no-store"
        return [_own(attempt) for attempt in site.board.attempts(participant)]

    @routes.get("/submissions/{number}")
    def submission(number: int, response: Response, participant: Annotated[Participant, Depends(participant)]) -> Own:
        """Return one of your own submissions."""
        response.headers["Cache-Control"] = "no-store"
        return _own(site.board.attempt(participant, number))

    return routes


def ranking(site: Site, task: str) -> list[Ranked]:
    """Return the ranking for one task or overall; Refused if there is no such task."""
    found = site.board.standings()
    if task not in found:
        raise Refused(Refusal.NOT_FOUND, f"there is no task {task[:80]!r}; there are {', '.join(found)}")
    return found[task]


def _scored(entry: Entry) -> Scored:
    return Scored(
        task=entry.task,
        passed=entry.passed,
        quality=entry.quality,
        score=entry.score.value,
        score_low=entry.score.low,
        score_high=entry.score.high,
        deterministic_score=entry.deterministic,
    )


def _own(attempt: Attempt) -> Own:
    fields = {name: value for name, value in vars(attempt).items() if name != "entry"}
    return Own(**fields, result=None if attempt.entry is None else _scored(attempt.entry))
