"""Servers that stall, break off or refuse: each is a sentence, and no part of a file stays."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolkit.data import download
from toolkit.errors import DataError


@contextmanager
def answering(reply: bytes, hold: bool = False) -> Iterator[str]:
    """A server that sends `reply` to one request and then closes, or holds the line."""
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(reply)
            if hold:
                done.wait(5)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"
    done.set()
    thread.join()
    listener.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize(
    ("reply", "hold", "says"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf", False, "4 of 100 bytes"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nhalf", True, "timed out"),
        (b"", True, "timed out"),
        (b"", False, "cannot be downloaded"),
        (b"no http at all\r\n\r\n", False, "cannot be downloaded"),
        (b"HTTP/1.0 503 Busy\r\n\r\n", False, "503 Busy"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 200, False, "sends too much"),
    ],
)
def test_a_failed_download_is_a_sentence_and_leaves_no_part(
    reply: bytes, hold: bool, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    with answering(reply, hold) as url, pytest.raises(DataError, match=says):
        download.fetch(url, tmp_path / "file", most_bytes=150)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_no_part(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with (
        answering(b"HTTP/1.0 200 OK\r\n\r\nsome") as url,
        pytest.raises(KeyboardInterrupt),
    ):
        download.fetch(url, tmp_path / "file", most_bytes=150, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []
