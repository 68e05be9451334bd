"""Chapter 14's published timings, one thread each, of a GPT of the zoo's sizes (d 128, 4 layers, 4 heads) with random
weights: the time of a step does not depend on what the model has learned. Backend "numpy", as in the chapter.

Run `14_forward`, for T = 16, 32, 64, ..., 2048 with four digits, so that a table of the rows is in order:

* `T0016` ... `T2048`: microseconds per token of one forward pass over T tokens, batch 1, no gradients,
  max_seq_len 2048.

Run `14_generation`, for N = 64, 128, 255 new tokens after a prompt of one, greedy, max_seq_len 256:

* `ratio_064`, `ratio_128`, `ratio_255`: time without the cache over time with it, from interleaved pairs;
* `cached_064` ..., `uncached_064` ...: milliseconds of the whole call, the medians of the same pairs.

The rounds of `14_forward` time every length once, in random order, so that all lengths met the same machine.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.bench.launches import TRIAL
from tests.bench.training import Rows, row
from tests.bench.turns import timer
from tinytorch import backend, nn, no_grad, zoo
from tinytorch.profiling.timing.statistics import median_interval

LENGTHS = tuple(2**i for i in range(4, 12))
NEW_TOKENS = (64, 128, 255)


def forward_14(rng: np.random.Generator, budget: float) -> Rows:
    """Measure the forward pass at every length. An AssertionError if a token's scores depend on later tokens."""
    shipped = zoo.char_gpt(rng)
    sizes = (shipped.vocab_size, shipped.embed_dim, shipped.num_layers, shipped.num_heads)
    model = nn.GPT(*sizes, max_seq_len=LENGTHS[-1], rng=rng).eval()
    ids = rng.integers(0, model.vocab_size, (1, LENGTHS[-1]))
    with no_grad(), backend("numpy"):
        longest = model(ids).data
        for length in LENGTHS:
            np.testing.assert_allclose(model(ids[:, :length]).data, longest[:, :length], atol=1e-5)
        passes = [partial(model, ids[:, :length]) for length in LENGTHS]
        times = timer(rng, budget).rounds(passes)
    return {
        f"T{length:04d}": row(
            median_interval(1e6 * column / length), "µs per token", f"Forward pass over {length} tokens, one thread"
        )
        for length, column in zip(LENGTHS, times.T, strict=True)
    }


def generation_14(rng: np.random.Generator, budget: float) -> Rows:
    """Measure generation with and without the cache. An AssertionError if they do not give the same tokens.

    A trial does not time the longest text.
    """
    model = zoo.char_gpt(rng).eval()
    prompt = rng.integers(0, model.vocab_size, 1)
    work = sum(n**2 for n in NEW_TOKENS)
    rows: Rows = {}
    for n in NEW_TOKENS:
        uncached = partial(model.generate, prompt, n, top_k=1, use_cache=False)
        cached = partial(model.generate, prompt, n, top_k=1, use_cache=True)
        check = partial(_check_equal, uncached, cached)
        share = budget * n**2 / work
        with backend("numpy"):
            sides = {"cached": cached, "uncached": uncached}
            if budget < TRIAL and n == NEW_TOKENS[-1]:  # a round takes two seconds
                check()
                continue
            result = timer(rng, share).compare(sides, check=check)
        what = f"Generating {n} tokens"
        rows |= {
            f"ratio_{n:03d}": row(result.ratio, "x", f"{what}, time without past_key_value over with it, one thread"),
            f"cached_{n:03d}": row(
                result.seconds("cached").scaled(1e3), "ms", f"{what} with past_key_value, one thread"
            ),
            f"uncached_{n:03d}": row(
                result.seconds("uncached").scaled(1e3), "ms", f"{what} without past_key_value, one thread"
            ),
        }
    return rows


def _check_equal(uncached: partial[np.ndarray], cached: partial[np.ndarray]) -> None:
    np.testing.assert_array_equal(cached(), uncached())
