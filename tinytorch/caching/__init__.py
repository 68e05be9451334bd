"""Keys and values that a model remembers: caches of several kinds, what they cost, and what they are good for."""

from tinytorch.caching.cached_attention import CachedAttention
from tinytorch.caching.memory import PUBLISHED, ModelShape, kv_cache_bytes, shape_of
from tinytorch.caching.paged import PagedKVCache
from tinytorch.caching.pages import OutOfPages, PagePool
from tinytorch.caching.prefix import PrefixCache
from tinytorch.caching.quantized import QuantizedKVCache
from tinytorch.caching.server import Requests, Served, Server, simulate, users_that_fit
from tinytorch.caching.speculative import Speculation, speculate
from tinytorch.caching.window import WindowKVCache
from tinytorch.nn.cache import KVCache

__all__ = [
    "PUBLISHED",
    "CachedAttention",
    "KVCache",
    "ModelShape",
    "OutOfPages",
    "PagePool",
    "PagedKVCache",
    "PrefixCache",
    "QuantizedKVCache",
    "Requests",
    "Served",
    "Server",
    "Speculation",
    "WindowKVCache",
    "kv_cache_bytes",
    "shape_of",
    "simulate",
    "speculate",
    "users_that_fit",
]
