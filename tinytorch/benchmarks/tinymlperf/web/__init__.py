"""The competition in a browser and as JSON: standings, histories, uploads."""

from __future__ import annotations

from tinytorch.benchmarks.tinymlperf.web.app import create_app
from tinytorch.benchmarks.tinymlperf.web.rates import Rates

__all__ = ["Rates", "create_app"]
