"""The scores of one participant over time, as an SVG picture inside a page; colours come from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from markupsafe import Markup, escape

from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import Entry

WIDTH, HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 468, 12, 284
_MARKS = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "M-4.5-4.5h9v9h-9Z",
    "M0-6L5.5 4.5h-11Z",
    "M0-6.5L6 0L0 6.5L-6 0Z",
    "M-6-2h4v-4h4v4h4v4h-4v4h-4v-4h-4Z",
)
_STEPS = (1, 2, 5)


def history(entries: Sequence[Entry], title: Callable[[str], str]) -> Markup:
    """Draw scores and their intervals over the time of receipt, a series for each task, and the best one so far.

    Parameters
    ----------
    entries
        At least one, of one participant, in the order of receipt.
    title
        What tasks are called.
    """
    tasks = sorted({entry.task for entry in entries})
    first, last = _span([entry.received for entry in entries])
    ticks = _ticks(min(entry.score.low for entry in entries), max(entry.score.high for entry in entries))
    low, high = math.log(ticks[0]), math.log(ticks[-1])

    def x(moment: datetime) -> float:
        return _LEFT + (moment - first) / (last - first) * (_RIGHT - _LEFT)

    def y(score: float) -> float:
        return _BOTTOM - (math.log(score) - low) / (high - low) * (_BOTTOM - _TOP)

    parts = [*_frame(ticks, y, first, last)]
    for number, task in enumerate(tasks):
        parts += _series([entry for entry in entries if entry.task == task], number, x, y)
    best = {task: max(e.score.value for e in entries if e.task == task) for task in tasks}
    said = "; ".join(
        f"{title(task)}: {sum(e.task == task for e in entries)} scored, the best with {best[task]:,.0f}"
        for task in tasks
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="plot-title plot-desc">'
        '<title id="plot-title">Scores over time</title><desc id="plot-desc">{}</desc>{}</svg>{}'
    ).format(WIDTH, HEIGHT, f"{said}. The table has all numbers.", Markup("").join(parts), _legend(tasks, title))


def _series(
    entries: Sequence[Entry], number: int, x: Callable[[datetime], float], y: Callable[[float], float]
) -> Iterator[Markup]:
    best, path = 0.0, ""
    for entry in entries:
        across = f"{x(entry.received):.1f}"
        if entry.score.value > best:
            best = entry.score.value
            up = f"{y(best):.1f}"
            path += f"H{across}V{up}" if path else f"M{across} {up}"
    yield Markup('<g class="series series-{}"><path class="best" d="{}"/>').format(
        number % len(_MARKS), f"{path}H{_RIGHT}"
    )
    for entry in entries:
        across = f"{x(entry.received):.1f}"
        yield Markup('<path class="interval" d="M{} {:.1f}V{:.1f}"/>').format(
            across, y(entry.score.low), y(entry.score.high)
        )
        yield Markup('<path class="mark" transform="translate({} {:.1f})" d="{}"/>').format(
            across, y(entry.score.value), _MARKS[number % len(_MARKS)]
        )
    yield Markup("</g>")


def _frame(ticks: Sequence[float], y: Callable[[float], float], first: datetime, last: datetime) -> Iterator[Markup]:
    for tick in ticks:
        yield Markup('<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" class="end">{:,g}</text>').format(
            _LEFT, y(tick), _RIGHT, _LEFT - 6, y(tick) + 5, tick
        )
    format_ = "%Y-%m-%d" if last - first >= timedelta(days=3) else "%m-%d %H:%M"
    for place, moment, side in ((_LEFT, first, "start"), (_RIGHT, last, "end")):
        yield Markup('<text x="{}" y="{}" class="{}">{}</text>').format(
            place, _BOTTOM + 24, side, moment.strftime(format_)
        )
    yield Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(_LEFT, _TOP, _BOTTOM, _RIGHT)


def _legend(tasks: Sequence[str], title: Callable[[str], str]) -> Markup:
    keys = [
        Markup(
            '<li><svg class="key" viewBox="-8 -8 16 16" aria-hidden="true"><g class="series series-{}">'
            '<path class="mark" d="{}"/></g></svg> {}</li>'
        ).format(number % len(_MARKS), _MARKS[number % len(_MARKS)], escape(title(task)))
        for number, task in enumerate(tasks)
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(keys))


def _span(moments: Sequence[datetime]) -> tuple[datetime, datetime]:
    """Return the ends of the time axis: a little beyond the moments, an hour at least."""
    first, last = min(moments), max(moments)
    beyond = max((last - first) / 20, timedelta(minutes=30))
    return first - beyond, last + beyond


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers around a range, evenly spread in their logarithms: at most seven.

    Examples
    --------
    >>> _ticks(900, 2100), _ticks(1000, 1000), _ticks(31.25, 32000)
    ([500, 1000, 2000, 5000], [500, 1000, 2000], [10, 100, 1000, 10000, 100000])
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for steps in (_STEPS, (1,)):
        every = [step * 10.0**power if power < 0 else step * 10**power for power in powers for step in steps]
        begin = max(index for index, tick in enumerate(every) if tick < low)
        end = min(index for index, tick in enumerate(every) if tick > high)
        if end - begin < 7:
            break
    return every[begin : end + 1]
