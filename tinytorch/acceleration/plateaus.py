"""Find the steps and the flat parts of a staircase of latencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEEP = 1.35  # a rise per octave above this factor belongs to a step
_STEP = 1.5  # the least factor of a step from one end to the other


@dataclass(frozen=True)
class Plateau:
    """Sizes with about one latency.

    `latency` in seconds and `bandwidth` in bytes per second are medians; `up_to` is the number of bytes at which the
    next step lies, None for the last plateau.
    """

    latency: float
    bandwidth: float
    up_to: int | None


def find_plateaus(sizes: np.ndarray, latency: np.ndarray, bandwidth: np.ndarray) -> tuple[Plateau, ...]:
    """Divide a staircase into plateaus with steps between them.

    More data are never faster and a disturbance only slows, so every latency is first lowered to the least one at this
    or a larger size. What then rises by more than a factor of 1.35 within an octave is steep; steep sizes beside one
    another are a step if they rise by 1.5 or more altogether and flat sizes lie on both sides. The step is placed
    where the latency crosses the geometric mean of its two ends: measured latencies grow not all at once, since data
    somewhat larger than a cache are still partly found in it.

    Parameters
    ----------
    sizes, latency, bandwidth
        As in `MemoryHierarchy`: (sizes,).
    """
    place = np.log2(sizes)
    height = np.minimum.accumulate(np.log2(latency)[::-1])[::-1]
    rise = np.interp(place + 0.5, place, height) - np.interp(place - 0.5, place, height)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rise > np.log2(_STEEP), [False]])))
    plateaus, begin = [], 0
    for first, after in edges.reshape(-1, 2):  # steep sizes: first, ..., after - 1
        low, high = first - 1, after
        if low < 0 or high == len(sizes) or height[high] - height[low] < np.log2(_STEP):
            continue
        crossing = np.interp((height[low] + height[high]) / 2, height[low : high + 1], place[low : high + 1])
        flat = slice(begin, first)
        plateaus.append(_plateau(height[flat], bandwidth[flat], round(2**crossing)))
        begin = after
    return (*plateaus, _plateau(height[begin:], bandwidth[begin:], None))


def _plateau(height: np.ndarray, bandwidth: np.ndarray, up_to: int | None) -> Plateau:
    return Plateau(2.0 ** float(np.median(height)), float(np.median(bandwidth)), up_to)
