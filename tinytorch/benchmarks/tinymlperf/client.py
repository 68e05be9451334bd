"""Sending a submission to a server, with nothing but Python's own library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path


def send(server: str, token: str, path: Path) -> str:
    """Send a file; return what the server says of it.

    Raises
    ------
    ValueError
        If the address is none of http or https.
    RuntimeError
        If the server refuses it, in the server's words, or cannot be reached.
    """
    if not server.startswith(("http://", "https://")):
        raise ValueError(f"{server!r} is no address of a server: http://HOST:PORT")
    request = urllib.request.Request(
        f"{server.rstrip('/')}/api/submissions",
        path.read_bytes(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(_words(error)) from None
    except urllib.error.URLError as error:
        raise RuntimeError(f"{server} cannot be reached: {error.reason}") from None
    return f"submission {found['submission']}: {found['state']}; {found['quota_left']} left today"


def _words(error: urllib.error.HTTPError) -> str:
    try:
        said = json.load(error)["error"]
        return f"{said['code']}: {said['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code}"
