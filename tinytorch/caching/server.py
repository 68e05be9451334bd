"""A server of many users, simulated on paper: how many fit in its memory, and how long they wait.

Nothing here is measured. It is a model of one accelerator that works in steps, with these assumptions:

* A step gives one token to each sequence in the batch, and takes ``step_seconds + sequence_seconds * n`` for n of them:
  the weights are read once for all, the caches one by one.
* A request is admitted between two steps, in the order of arrival. Its prompt takes ``prefill_seconds`` a token, in
  which the others wait.
* Memory is counted in tokens. Without pages a request takes `max_seq_len` of them until it ends, since nobody knows how
  long its text will be. With pages it takes what it has, in whole pages; when none is left, the youngest request gives
  back its pages and is admitted again later, its text so far being its prompt.
* With continuous batching requests join and leave after any step. Without it, a batch is filled and runs until the
  longest of its texts has ended; those that end earlier leave their places empty.

Sources: Kwon et al., "Efficient memory management for large language model serving with PagedAttention" (2023),
sections 3 and 4; Yu et al., "Orca: A distributed serving system for transformer-based generative models" (2022),
section 3.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Requests(NamedTuple):
    """Requests in the order of their arrival: seconds, tokens of the prompt, tokens wanted, arrays (N,)."""

    arrival: np.ndarray
    prompt: np.ndarray
    new: np.ndarray

    @classmethod
    def sample(
        cls, count: int, rate: float, rng: np.random.Generator, prompt: float = 160.0, new: float = 340.0,
        longest: int = 2048,
    ) -> Requests:  # fmt: skip
        """Draw requests that arrive at random, `rate` a second, with lengths of lognormal distributions.

        `prompt` and `new` are the means of the distributions; each length is cut at half of `longest`, which makes the
        means of what is drawn smaller. They are near those of the conversations in Kwon et al. (2023), figure 11.

        Raises
        ------
        ValueError
            If the rate or a mean is not above 0, or `longest` leaves no room for a token of the prompt and a new one.
        """
        if not (min(rate, prompt, new) > 0 and longest > 1):
            raise ValueError(
                f"rate, prompt, and new must be above 0 and longest above 1, not {rate}, {prompt}, {new}, {longest}"
            )
        sigma = 0.9
        arrival = np.cumsum(rng.exponential(1 / rate, count))
        lengths = (
            np.clip(rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, count).astype(np.int64), 1, longest // 2)
            for mean in (prompt, new)
        )
        return cls(arrival, *lengths)


@dataclass(frozen=True)
class Server:
    """What serves.

    Parameters
    ----------
    tokens
        How many tokens' keys and values fit in its memory.
    max_seq_len
        The longest text, prompt included: what a request takes without pages.
    page_size
        Tokens of a page, or None for no pages.
    is_continuous
        Whether requests join and leave after any step.
    max_batch
        How many sequences a step takes at most.
    step_seconds, sequence_seconds, prefill_seconds
        Of a step; more for each sequence in it; of a token of a prompt.

    Raises
    ------
    ValueError
        If a size is below 1, a time negative or not finite, a step takes no time, or the memory does not hold the
        longest text.
    """

    tokens: int
    max_seq_len: int = 2048
    page_size: int | None = 16
    is_continuous: bool = True
    max_batch: int = 256
    step_seconds: float = 0.02
    sequence_seconds: float = 0.0001
    prefill_seconds: float = 0.0001

    def __post_init__(self) -> None:
        for name in ("tokens", "max_seq_len", "max_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.page_size is not None and self.page_size < 1:
            raise ValueError(f"a page has 1 or more tokens, not {self.page_size}")
        times = self.step_seconds, self.sequence_seconds, self.prefill_seconds
        if not all(0 <= seconds < math.inf for seconds in times) or not self.step_seconds:
            raise ValueError(f"times are finite and not negative, and a step takes some: {times}")
        if self._pages(self.max_seq_len) > self.pages:
            raise ValueError(f"a memory of {self.tokens} tokens does not hold a text of max_seq_len {self.max_seq_len}")

    @property
    def pages(self) -> int:
        """How many pages fit; without pages, how many longest texts."""
        return self.tokens // (self.page_size or self.max_seq_len)

    def _pages(self, length: int) -> int:
        return 1 if self.page_size is None else -(-length // self.page_size)


@dataclass(frozen=True)
class Served:
    """What became of all requests.

    Attributes
    ----------
    first, finish
        Seconds at which each had its first token and its last (N,).
    seconds
        From 0 to the last token of all.
    sequences
        How many were in the batch, on average over the time that all steps took, prompts not counted.
    utilisation
        The share of the memory that held keys and values, on average over that time.
    preemptions
        How often a request had to give its pages back.
    """

    requests: Requests
    first: np.ndarray
    finish: np.ndarray
    seconds: float
    sequences: float
    utilisation: float
    preemptions: int

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all requests over the seconds."""
        return float(self.requests.new.sum() / self.seconds)

    def wait(self, percent: float = 50.0) -> float:
        """Return the seconds from arrival to the first token that so many percent of the requests do not exceed."""
        return float(np.percentile(self.first - self.requests.arrival, percent))

    def latency(self, percent: float = 50.0) -> float:
        """Return this percentile of the seconds for each new token, from arrival to the last; 50 is the median."""
        return float(np.percentile((self.finish - self.requests.arrival) / self.requests.new, percent))


def users_that_fit(server: Server, lengths: np.ndarray) -> int:
    """Return how many texts of these lengths (N,), the first of them, the memory holds at once.

    Raises
    ------
    ValueError
        If a text has no token, or more than `max_seq_len`.
    """
    lengths = np.asarray(lengths)
    if lengths.size and not (lengths.min() >= 1 and lengths.max() <= server.max_seq_len):
        found = f"{lengths.min()} to {lengths.max()}"
        raise ValueError(f"texts have 1 token or more, up to max_seq_len {server.max_seq_len}, not {found}")
    pages = np.array([server._pages(length) for length in lengths.tolist()], np.int64)
    return int(np.searchsorted(np.cumsum(pages), server.pages, side="right"))


def simulate(server: Server, requests: Requests) -> Served:
    """Serve all requests, from event to event: a million of them take some seconds.

    Raises
    ------
    ValueError
        If arrays differ in length, lengths are no integers, an arrival is not finite, requests do not come in the order
        of arrival, or one has no token, or more than `max_seq_len`.
    """
    if len({array.shape for array in requests}) > 1 or requests.arrival.ndim != 1:
        shapes = [array.shape for array in requests]
        raise ValueError(f"arrival, prompt, and new must be arrays (N,) of one length, not {shapes}")
    if not all(np.issubdtype(array.dtype, np.integer) for array in (requests.prompt, requests.new)):
        raise ValueError(f"tokens are counted in integers, not {requests.prompt.dtype} and {requests.new.dtype}")
    total = requests.prompt + requests.new
    if not len(total) or not np.isfinite(requests.arrival).all() or (np.diff(requests.arrival) < 0).any():
        raise ValueError("there must be requests, in the order of their arrival, at finite times")
    if min(requests.prompt.min(), requests.new.min()) < 1 or total.max() > server.max_seq_len:
        raise ValueError(f"prompt and new tokens are 1 or more, together up to max_seq_len {server.max_seq_len}")
    return _Run(server, requests).run()


class _Run:
    """The state between two events. A step's number modulo the size of a page tells whose pages are full before it."""

    def __init__(self, server: Server, requests: Requests) -> None:
        self.server, self.requests = server, requests
        self.arrival, self.prompt, self.new = (array.tolist() for array in requests)
        count = len(self.arrival)
        self.first, self.finish = [-1.0] * count, [0.0] * count
        self.time, self.step = 0.0, 0  # seconds; steps done
        self.next = 0  # the first request that has not arrived
        self.waiting: deque[int] = deque()
        self.done = [0] * count  # tokens that a request had before its last admission
        self.since = [0] * count  # the step before which that was
        self.joined = [0] * count  # the number of that admission, 0 if it is not in the batch
        self.admissions, self.preemptions = 0, 0
        self.ends: list[tuple[int, int, int]] = []  # a heap: (step after which it ends, admission, request)
        self.stack: list[tuple[int, int]] = []  # (admission, request), the youngest last, some of them gone
        self.fresh: list[int] = []  # admitted, and without a first token
        self.size, self.places = 0, 0  # sequences that run, and that a step takes time for
        self.free, self.held = server.pages, 0  # pages; tokens
        self.due = [0] * (server.page_size or 1)  # how many sequences need a page more before a step of this number
        self.busy = self.sequence_time = self.token_time = 0.0

    def run(self) -> Served:
        while self.next < len(self.arrival) or self.waiting or self.size:
            self._arrive()
            self._admit()
            if not self.size:
                self.time = max(self.time, self.arrival[self.next])
            elif steps := self._steps():
                self._advance(steps)
            else:
                self._preempt()
        share = self.busy * self.server.tokens
        return Served(
            self.requests, np.array(self.first), np.array(self.finish), self.time, self.sequence_time / self.busy,
            self.token_time / share, self.preemptions,
        )  # fmt: skip

    def _arrive(self) -> None:
        while self.next < len(self.arrival) and self.arrival[self.next] <= self.time:
            self.waiting.append(self.next)
            self.next += 1

    def _admit(self) -> None:
        """Take requests into the batch while there is room for their texts and the next step of all."""
        server = self.server
        if self.size and not server.is_continuous:
            return
        self.places = self.size
        while self.waiting and self.places < server.max_batch:
            request = self.waiting[0]
            length = self.prompt[request] + self.done[request]
            soon = self.due[self.step % server.page_size] if server.page_size else 0
            if server._pages(length + 1) + soon > self.free:
                return
            self.waiting.popleft()
            self.time += server.prefill_seconds * length
            self.admissions += 1
            self.joined[request], self.since[request] = self.admissions, self.step
            end = self.step + self.new[request] - self.done[request]
            heapq.heappush(self.ends, (end, self.admissions, request))
            self.stack.append((self.admissions, request))
            self._count(request, length, 1)
            self.places += 1
            if self.first[request] < 0:
                self.fresh.append(request)
            self._arrive()

    def _count(self, request: int, length: int, sign: int) -> None:
        """Add a sequence of so many tokens to the sums, or take it off."""
        self.size, self.held = self.size + sign, self.held + sign * length
        self.free -= sign * self.server._pages(length)
        if size := self.server.page_size:
            self.due[(self.step - length) % size] += sign

    def _seconds(self) -> float:
        return self.server.step_seconds + self.server.sequence_seconds * self.places

    def _steps(self) -> int:
        """Return how many steps can be done until something changes; 0 if pages are missing for the next one."""
        server = self.server
        while self.joined[self.ends[0][2]] != self.ends[0][1]:
            heapq.heappop(self.ends)  # was preempted since
        steps = self.ends[0][0] - self.step
        can_join = server.is_continuous and self.places < server.max_batch
        if can_join and not self.waiting and self.next < len(self.arrival):
            steps = min(steps, max(1, math.ceil((self.arrival[self.next] - self.time) / self._seconds())))
        if server.page_size:
            size = server.page_size
            whole = min(steps // size, self.free // self.size)  # of so many steps each takes a page of all
            possible, free = whole * size, self.free - whole * self.size
            while possible < steps and self.due[(self.step + possible) % size] <= free:
                free -= self.due[(self.step + possible) % size]
                possible += 1
            steps = possible
        return steps

    def _advance(self, steps: int) -> None:
        each = self._seconds()
        for request in self.fresh:
            self.first[request] = self.time + each
        self.fresh.clear()
        if size := self.server.page_size:
            whole, rest = divmod(steps, size)
            self.free -= whole * self.size + sum(self.due[(self.step + n) % size] for n in range(rest))
        self.busy += steps * each
        self.sequence_time += steps * each * self.size
        self.token_time += each * (steps * self.held + self.size * steps * (steps + 1) / 2)
        self.held += steps * self.size
        self.time += steps * each
        self.step += steps
        while self.ends and self.ends[0][0] <= self.step:
            _, admission, request = heapq.heappop(self.ends)
            if self.joined[request] == admission:
                self.finish[request] = self.time
                self._leave(request)

    def _leave(self, request: int) -> None:
        self.done[request] += self.step - self.since[request]
        self.joined[request] = 0
        self._count(request, self.prompt[request] + self.done[request], -1)

    def _preempt(self) -> None:
        """Send the youngest back to the head of the queue."""
        while self.joined[self.stack[-1][1]] != self.stack[-1][0]:
            self.stack.pop()  # has ended
        _, request = self.stack.pop()
        self._leave(request)
        self.waiting.appendleft(request)
        self.preemptions += 1
