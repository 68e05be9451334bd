"""One launch of the measurements of generation: `python -m tests.bench.generation SEED SECONDS`.

A GPT of the zoo's sizes (d 128, 4 layers, 4 heads) with random weights and max_seq_len 1040, compiled kernels, one
thread. Its rows:

* `new_0016`, `new_0032`, ... `new_1024`: milliseconds for so many new tokens behind a prompt of one, greedy, with the
  cache; `..._uncached`: the time without it over it, from the same kernels;
* `step_1_0128` and so on, for batch and position: microseconds of a step that far in the text; `growth_1`, `growth_8`:
  that at position 1024 over that at 128;
* `step_..._torch`: PyTorch's time over it, eager, with a static cache and the same weights;
* `step_..._bound`: the time over the least one, that of reading weights and cache at the bandwidth of the cache level
  that holds both;
* `step_1_1024_int8`: the time with a cache of 8 bits over it;
* `prefill_512`: milliseconds for a prompt of 512 tokens; `prefill_512_torch`: PyTorch's time over it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from tests.bench.launches import LAUNCHES, TRIAL, Wanted, report
from tests.bench.peers import GPT, copy_state
from tests.bench.steps import step_of
from tests.bench.torch_cache import Generator
from tests.bench.turns import ratio, timer
from tinytorch import backend, nn, no_grad, zoo
from tinytorch.acceleration.roofline import Roofline, cache_sizes
from tinytorch.caching.quantized import QuantizedKVCache

Found = dict[str, tuple[float, Wanted]]
LENGTH = 1040
POSITIONS = (128, 1024)
BOUND, GROWTH = 2.5, 1.5
COUNTS, AIMS = (16, 32, 64, 128, 256, 512, 1024), {256: 10.0, 1024: 50.0}


def models(rng: np.random.Generator) -> tuple[nn.GPT, GPT]:
    """Return ours and PyTorch's, with the same weights."""
    shipped = zoo.char_gpt(rng)
    sizes = shipped.vocab_size, shipped.embed_dim, shipped.num_layers, shipped.num_heads, LENGTH
    model, peer = nn.GPT(*sizes, rng=rng).eval(), GPT(*sizes).eval()
    copy_state(model.state_dict(), peer)
    return model, peer


def written(model: nn.GPT, length: int, counts: Sequence[int], use_cache: bool) -> tuple[list[Any], dict[int, float]]:
    """Write a text; return its tokens, and by each of these counts the seconds until there were so many."""
    tokens, seconds, begin = list[Any](), dict[int, float](), time.perf_counter()
    for token in model.stream([1], length, top_k=1, use_cache=use_cache):
        tokens.append(token)
        if len(tokens) in counts:
            seconds[len(tokens)] = time.perf_counter() - begin
    return tokens, seconds


def texts(model: nn.GPT, counts: Sequence[int]) -> Found:
    """Whole texts with and without the cache: the least of several runs up to 128 tokens, of one beyond."""
    best: dict[tuple[bool, int], float] = {}
    model.generate([1], 8, top_k=1)
    for length in (*[16] * 12, *[128] * 4, counts[-1]):
        both = []
        for use_cache in (True, False):
            tokens, seconds = written(model, length, counts, use_cache)
            both.append(tokens)
            for count, elapsed in seconds.items():
                best[use_cache, count] = min(elapsed, best.get((use_cache, count), elapsed))
        np.testing.assert_array_equal(*both)
    rows: Found = {}
    for count in counts:
        what = f"{count} new tokens, with the cache"
        rows[f"new_{count:04d}"] = 1e3 * best[True, count], Wanted(what, "ms")
        over = Wanted(f"{what}: time without over it", "x", AIMS.get(count))
        rows[f"new_{count:04d}_uncached"] = best[False, count] / best[True, count], over
    return rows


def torch_step(generator: Generator, batch: int, position: int) -> Callable[[], np.ndarray]:
    """Return what `step_of` returns, of PyTorch."""
    ids = torch.ones((batch, 1), dtype=torch.int64)

    def step() -> np.ndarray:
        generator.length = position - 1
        return generator.step(ids).numpy()

    return step


def steps(model: nn.GPT, peer: GPT, batch: int, rng: np.random.Generator, seconds: float, roofline: Roofline) -> Found:
    """One more token at both positions, ours and PyTorch's."""
    ids, ones = rng.integers(0, model.vocab_size, (batch, LENGTH)), np.ones((batch, 1), np.int64)
    cache, small = nn.KVCache.of(model, batch), QuantizedKVCache.of(model, batch)
    generator = Generator(peer, batch, LENGTH)
    model(ids, cache)
    model(ids, small)
    generator.step(torch.from_numpy(ids))
    functions = [step_of(model, cache, ones, position) for position in POSITIONS]
    functions += [torch_step(generator, batch, position) for position in POSITIONS]
    for ours, theirs in zip(functions[:2], functions[2:], strict=True):
        np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-4)
    functions.append(step_of(model, small, ones, POSITIONS[1]))
    times = timer(rng, seconds).rounds(functions)
    medians, rows = np.median(times, axis=0), dict[str, tuple[float, Wanted]]()
    weights = 4 * (model.num_parameters() - model.position_embedding.weight.data.size)
    sequences = "1 sequence" if batch == 1 else f"{batch} sequences"
    for number, position in enumerate(POSITIONS):
        row, what = f"step_{batch}_{position:04d}", f"A step at position {position}, {sequences}"
        rows[row] = 1e6 * float(medians[number]), Wanted(what, "µs")
        aim = 3.0 if batch == 1 else 2.0
        rows[f"{row}_torch"] = ratio(times, 2 + number, number), Wanted(f"{what}, PyTorch's time over it", "x", aim)
        held = weights + cache.nbytes * position / LENGTH
        level = next((level for level, size in cache_sizes().items() if held <= size), "DRAM")
        bandwidth = roofline.bandwidth if level == "DRAM" else roofline.cache_bandwidth[level]
        over = Wanted(f"{what}, over the time of reading {held / 1e6:.1f} MB from {level}", "x", most=BOUND)
        rows[f"{row}_bound"] = float(medians[number]) * bandwidth / held, over
    what = f"A step at position {POSITIONS[1]} over one at {POSITIONS[0]}, {sequences}"
    # with 8 sequences, most of what is read belongs to one of them, and grows with the text
    rows[f"growth_{batch}"] = ratio(times, 1, 0), Wanted(what, "x", most=GROWTH if batch == 1 else None)
    what = f"A step at position {POSITIONS[1]}, {sequences}, with a cache of 8 bits over with float32"
    rows[f"step_{batch}_1024_int8"] = ratio(times, 4, 1), Wanted(what, "x")
    return rows


def prefill(model: nn.GPT, peer: GPT, rng: np.random.Generator, seconds: float) -> Found:
    """A prompt at once."""
    ids = rng.integers(0, model.vocab_size, (1, 512))
    cache, generator, tokens = nn.KVCache.of(model), Generator(peer, 1, LENGTH), torch.from_numpy(ids)

    def ours() -> np.ndarray:
        cache.truncate(0)
        return np.asarray(model(ids, cache).data[:, -1])

    def theirs() -> np.ndarray:
        generator.length = 0
        return generator.step(tokens).numpy()

    np.testing.assert_allclose(ours(), theirs(), rtol=0, atol=1e-4)
    times = timer(rng, seconds).rounds([ours, theirs])
    what = "A prompt of 512 tokens"
    return {
        "prefill_512": (1e3 * float(np.median(times[:, 0])), Wanted(what, "ms")),
        "prefill_512_torch": (ratio(times, 1, 0), Wanted(f"{what}, PyTorch's time over it", "x", 1.0)),
    }


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    model, peer = models(rng)
    with no_grad(), backend("numba"):
        roofline = Roofline.measure(quick=True, progress=False)
        part = partial(steps, model, peer, rng=rng, seconds=0.4 * seconds, roofline=roofline)
        counts = COUNTS if seconds >= TRIAL / LAUNCHES else COUNTS[:-1]  # the last takes 17 s uncached
        rows = texts(model, counts) | part(batch=1) | part(batch=8) | prefill(model, peer, rng, 0.2 * seconds)
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
