"""`Leaderboard(url)`: everything that is known of a competition, and the only way to change it."""

from __future__ import annotations

from tinytorch.benchmarks.tinymlperf.leaderboard.accounts import Accounts
from tinytorch.benchmarks.tinymlperf.leaderboard.leases import Leases
from tinytorch.benchmarks.tinymlperf.leaderboard.uploads import Uploads
from tinytorch.benchmarks.tinymlperf.leaderboard.views import Views


class Leaderboard(Views, Leases, Uploads, Accounts):
    """A competition from its opening to its ranking.

    A submission is received and queued (`submit`), leased by a worker (`lease`, `heartbeat`), and in the end scored,
    rejected, or given up because the infrastructure failed (`score`, `reject`, `fail`). The history is only added to.

    Threads and processes may share it. Each has to be given a `now`, a datetime with its time zone; what it decides is
    decided by that alone.

    Parameters
    ----------
    url
        `sqlite:///file.db` or `postgresql+psycopg://user@host/name`; tables are made if they are not there.
    files
        The folder of submitted files. Beside SQLite's database if it is not given; for PostgreSQL it has to be.
    competition
        The competition's name: a database can hold several.
    lease
        How long a worker has a submission without giving a sign of life.
    max_attempts
        How many leases of a submission may fail before the infrastructure is held to have failed it.
    max_bytes
        The largest file.

    Raises
    ------
    ValueError
        If one of the last three is not above zero, PostgreSQL is given no folder, or, by any call, a time has no zone.
    Refused
        By calls that need the competition, if there is none of this name.
    """
