"""Results as a picture: how good against how fast, and which of them nobody beats in both. SVG, written here."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinytorch.benchmarks.tinymlperf.results import Result

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 640, 400, 70, 50, 20


class Point(NamedTuple):
    """A model: what it costs, less is better, and how good it is, more is better."""

    cost: float
    quality: float
    name: str = ""


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Return those that no other one is at least as good as in both and better in one, by rising cost.

    >>> [p.name for p in pareto_front([Point(1, 90, "a"), Point(2, 95, "b"), Point(3, 94, "c"), Point(1, 80, "d")])]
    ['a', 'b']
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return front


def _cost(result: Result, kind: str) -> float:
    if kind == "seconds":
        return float(result.scenarios["offline"]["seconds"])
    return float(result.stored_bytes if kind == "bytes" else result.flops)


def scatter(results: Sequence[Result], cost: str = "seconds") -> str:
    """Draw the results of one task: quality over the offline time of a batch, the stored bytes, or the operations.

    Parameters
    ----------
    results
        Of one task.
    cost
        "seconds", "bytes" or "flops".

    Raises
    ------
    ValueError
        If there are none, or of several tasks.
    """
    if len({result.task for result in results}) != 1:
        raise ValueError("a picture shows the results of one task")
    sign = -1.0 if results[0].unit == "nats/char" else 1.0  # less loss is better
    points = [Point(_cost(r, cost), sign * r.quality, r.content_hash[:8]) for r in results]
    front = pareto_front(points)
    xs, ys = [math.log(p.cost) for p in points], [p.quality for p in points]

    def place(p: Point) -> tuple[float, float]:
        across = (math.log(p.cost) - min(xs) + 0.1) / (max(xs) - min(xs) + 0.2)
        up = (p.quality - min(ys) + 0.5) / (max(ys) - min(ys) + 1.0)
        return _LEFT + across * (_WIDTH - _LEFT - _EDGE), _HEIGHT - _BOTTOM - up * (_HEIGHT - _BOTTOM - _EDGE)

    title = f"{results[0].task}: {results[0].unit} over {cost}"
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, front))
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/><text x="{x + 8:.1f}" y="{y - 6:.1f}">{html.escape(p.name)} '
        f"{p.cost:.3g}, {abs(p.quality):.4g}</text>"
        for p in points
        for x, y in (place(p),)
    )
    corner = f"{_LEFT},{_EDGE} {_LEFT},{_HEIGHT - _BOTTOM} {_WIDTH - _EDGE},{_HEIGHT - _BOTTOM}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-size="13" '
        f'font-family="sans-serif" fill="currentColor"><title>{html.escape(title)}</title>'
        f'<polyline points="{corner}" fill="none" stroke="currentColor"/>'
        f'<polyline points="{steps}" fill="none" stroke="#0072b2" stroke-width="2"/>{marks}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{cost} (logarithmic)</text>'
        f'<text x="16" y="{_HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {_HEIGHT / 2})">'
        f"{html.escape(results[0].unit)}</text></svg>\n"
    )
