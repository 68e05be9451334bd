"""How often one may ask: a bucket of tokens for each address and each participant, in this process's memory."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Rate:
    """So many at once, and so many more each second on average."""

    burst: float
    each_second: float

    def __post_init__(self) -> None:
        if self.burst < 1 or self.each_second <= 0:
            raise ValueError(f"a rate of {self.burst} at once and {self.each_second} a second lets nobody in")


@dataclass(frozen=True)
class Rates:
    """What is allowed. A whole class may stand behind one address, so that addresses may do more than participants.

    Attributes
    ----------
    requests
        Of one address, of any kind.
    uploads
        Of one address, whoever's token they carry.
    participant
        Requests with one participant's token.
    """

    requests: Rate = Rate(300, 50)
    uploads: Rate = Rate(60, 1)
    participant: Rate = Rate(20, 0.5)


class Buckets:
    """A token bucket for each key (Turner, "New directions in communications", IEEE Communications 24, 1986).

    Parameters
    ----------
    rate
        Its size and how fast it fills.
    clock
        Tells the time.
    keys
        How many are remembered; the one longest unused is forgotten, and begins full again.
    """

    def __init__(self, rate: Rate, clock: Callable[[], datetime], keys: int = 10_000) -> None:
        self._rate, self._clock, self._keys = rate, clock, keys
        self._levels: OrderedDict[object, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: object) -> float:
        """Take a token: return 0.0, or after how many seconds there will be one if there is none."""
        now = self._clock().timestamp()
        with self._lock:
            level, since = self._levels.pop(key, (self._rate.burst, now))
            level = min(self._rate.burst, level + max(0.0, now - since) * self._rate.each_second)
            wait = 0.0 if level >= 1 else (1 - level) / self._rate.each_second
            self._levels[key] = (level if wait else level - 1, now)
            while len(self._levels) > self._keys:
                self._levels.popitem(last=False)
        return wait


def network(address: str) -> str:
    """Return what of an address belongs to one household: of IPv6 the first 64 bits, else all of it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
