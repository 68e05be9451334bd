"""What making the reference CNN smaller costs in right answers: published rows, and the models behind them."""

from tinytorch.compression.study.shipped import RESULTS, load, names, read_card

__all__ = ["RESULTS", "load", "names", "read_card"]
