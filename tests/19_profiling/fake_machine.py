"""A made-up machine: only calls of its functions and readings of its clock move it, at a pace as bad as wanted."""

import math

import numpy as np


class FakeMachine:
    """Noise is a share of each call's time.

    noise: standard deviation of the logarithm; sway: slow neighbours come and go; drift: growth over 10 seconds, then
    gone; spikes: share of calls that take 5 times as long; heavy: the noise has no variance (Student's t with 2
    degrees of freedom).
    """

    def __init__(
        self, rng=None, *, noise=0.0, sway=0.0, drift=0.0, spikes=0.0, heavy=False, read=5e-8, step=0.0, period=7.0
    ):
        self.rng, self.noise, self.sway, self.drift, self.spikes, self.heavy = rng, noise, sway, drift, spikes, heavy
        self.now, self.read, self.step, self.period, self.calls = 0.0, read, step, period, []

    def clock(self):
        self.now += self.read
        return math.floor(self.now / self.step) * self.step if self.step else self.now

    def function(self, name, seconds):
        def call():
            self.calls.append(name)
            self.now += seconds * self._pace()

        return call

    def _pace(self):
        pace = 1.0 + self.sway * math.sin(self.now / self.period) + self.drift * (self.now % 10.0) / 10.0
        if self.noise:
            pace *= math.exp(self.noise * (self.rng.standard_t(2) if self.heavy else self.rng.normal()))
        if self.spikes and self.rng.random() < self.spikes:
            pace *= 5.0
        return pace


NOISES = {
    "even": {"noise": 0.03},
    "sway": {"noise": 0.03, "sway": 0.5},
    "drift": {"noise": 0.02, "drift": 0.3},
    "spikes": {"noise": 0.02, "spikes": 0.1},
    "heavy tails": {"noise": 0.02, "heavy": True},
    "all": {"noise": 0.02, "sway": 0.3, "drift": 0.2, "spikes": 0.05, "heavy": True},
}


def machine(kind, seed):
    """Return one of these, and its generator."""
    rng = np.random.default_rng([seed, sorted(NOISES).index(kind)])
    return FakeMachine(rng, **NOISES[kind]), rng
