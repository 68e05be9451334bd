"""`Leaderboard(url)`: everything that is known of a competition, and the only way to change it."""

from __future__ import annotations

from tinytorch.benchmarks.tinymlperf.leaderboard.accounts import Accounts
from tinytorch.benchmarks.tinymlperf.leaderboard.leases import Leases
from tinytorch.benchmarks.tinymlperf.leaderboard.uploads import Uploads
from tinytorch.benchmarks.tinymlperf.leaderboard.views import Views


class Leaderboard(Views, Leases, Uploads, Accounts):
    """A competition from its opening to its ranking. Parameters: `Board`.

    A submission is received and queued (`submit`), leased by a worker (`lease`, `heartbeat`), and in the end scored,
    rejected, or given up because the infrastructure failed (`score`, `reject`, `fail`). The history is only added to.

    Threads and processes may share it. Each has to be given a `now`; what it decides is decided by that alone.
    """
