"""The kernels' command line: `python -m tinytorch.kernels warmup`."""

from __future__ import annotations

import argparse
import sys
import time

from tinytorch.kernels.backend import compiled
from tinytorch.kernels.warmup import warmup


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 for an error that was explained, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tinytorch.kernels", description="The compiled kernels.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("warmup", help="compile every kernel now, so that none has to be when it is needed")
    parser.parse_args(argv)
    start = time.perf_counter()
    try:
        count = warmup()
    except ModuleNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped: what was compiled until now is kept", file=sys.stderr)
        return 130
    folder = compiled("jit").cache_folder()
    print(f"ready after {time.perf_counter() - start:.1f} s: {count} functions compiled, the others found in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
