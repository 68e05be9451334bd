"""The data sets that ship with the book. Their cards (source, licence, SHA-256) stand beside them in `files/`."""

from tinytorch.data.batches import shuffled, windows
from tinytorch.data.files import DataError
from tinytorch.data.images import Images, digits, fashion_mnist
from tinytorch.data.text import Text, decode, encode, shakespeare

__all__ = [
    "DataError",
    "Images",
    "Text",
    "decode",
    "digits",
    "encode",
    "fashion_mnist",
    "shakespeare",
    "shuffled",
    "windows",
]
