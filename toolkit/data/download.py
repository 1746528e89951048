"""Fetches one file with a time limit and a size limit. Who calls it verifies the bytes before they get their name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import DataError
from toolkit.storage.files import os_errors

if TYPE_CHECKING:
    from http.client import HTTPResponse

Progress = Callable[[int, int], None]
"""Called with (done, total); total is 0 where nobody knows it."""

TIMEOUT_S = 30.0
CHUNK = 1 << 17


def fetch(url: str, target: Path, *, most_bytes: int, on_progress: Progress | None = None) -> None:
    """Downloads `url` to `target`; a part is removed again when it fails or is interrupted.

    Args:
        most_bytes: more than this is refused while it arrives, before it can fill the disk.
        on_progress: called with bytes done and bytes announced (0: not announced).

    Raises:
        DataError: the server cannot be reached, refuses, stalls for 30 s, or sends too little or too much.
        ToolkitError: the disk is full or the folder cannot be written.
    """
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "trt-edge-toolkit"})
    try:
        with _network_errors(url), urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            _save(response, url, target, most_bytes, on_progress)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _save(response: HTTPResponse, url: str, target: Path, most_bytes: int, on_progress: Progress | None) -> None:
    announced, done = int(response.headers.get("Content-Length") or 0), 0
    with os_errors(target):
        stream = target.open("wb")
    with stream:
        while chunk := response.read(CHUNK):
            done += len(chunk)
            if done > most_bytes:
                raise DataError(f"{url} sends too much", found=f"over {done} bytes", allowed=f"{most_bytes} bytes")
            # a full disk must not read as a network fault, so writing has its own translation
            with os_errors(target):
                stream.write(chunk)
            if on_progress:
                on_progress(done, announced)
        with os_errors(target):
            stream.flush()
    if announced and done != announced:
        raise DataError(f"{url} broke off", found=f"{done} of {announced} bytes", fix="run the command again")


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turns what urllib raises into a sentence."""
    import http.client
    import urllib.error

    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(
            f"{url} cannot be downloaded",
            found=f"the server answers {error.code} {error.reason}",
            fix="try later, or put the files in place by hand",
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{url} cannot be downloaded",
            found=f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else reason,
            fix="check the network and its proxy settings, or put the files in place by hand",
        ) from error
