"""What making models smaller costs in right answers and in nats: published rows, and the models behind them."""

from tinytorch.compression.study.shipped import RESULTS, load, names, read_card
from tinytorch.compression.study.text import TEXT_LEVELS, load_text, read_text_card

__all__ = ["RESULTS", "TEXT_LEVELS", "load", "load_text", "names", "read_card", "read_text_card"]
