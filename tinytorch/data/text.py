"""Shakespeare, character by character."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinytorch.data import files

VOCABULARY = "\n !\"&'()" + ",-.:;?" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "[]" + "abcdefghijklmnopqrstuvwxyz"


class Text(NamedTuple):
    """`tokens` uint8 (N,): the number of each character in `vocabulary`; `titles` of the plays, in their order."""

    tokens: np.ndarray
    vocabulary: str
    titles: tuple[str, ...]


def shakespeare(split: str) -> Text:
    """Load eight plays for training ("train", 1 MB) or the two that are held out ("held-out", 0.2 MB).

    Raises
    ------
    ValueError
        If there is no such split.
    DataError
        If the file is missing or damaged: says what to run.
    """
    if split not in ("train", "held-out"):
        raise ValueError(f'split must be "train" or "held-out", not {split!r}')
    text = files.read("shakespeare", f"shakespeare-{split}.xz").decode("ascii")
    return Text(encode(text), VOCABULARY, tuple(files.card("shakespeare")["plays"][split]))


def encode(text: str) -> np.ndarray:
    """Turn characters into token numbers, uint8 (len(text),). A ValueError names the first unknown character.

    >>> encode("To be")
    array([33, 56,  1, 43, 46], dtype=uint8)
    """
    numbers = np.array([VOCABULARY.find(c) for c in text], np.int64)
    if (numbers < 0).any():
        at = int(np.argmax(numbers < 0))
        raise ValueError(f"character {text[at]!r} at position {at} is not one of the {len(VOCABULARY)} known ones")
    return numbers.astype(np.uint8)


def decode(tokens: np.ndarray) -> str:
    """Turn token numbers (T,) into T characters.

    >>> decode(encode("or not"))
    'or not'
    """
    return "".join(VOCABULARY[int(t)] for t in tokens)
