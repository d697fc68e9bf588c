"""Servers on this machine for tests: of a folder over HTTP, and of nothing at all."""

import functools
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class _Folder(SimpleHTTPRequestHandler):
    """As web servers serve folders.

    Args:
        encodings: what is said to be packed, by path, and how.
    """

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, encodings: Mapping[str, str], **options: Any) -> None:
        self._encodings = encodings
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        if self._encodings.get(self.path):
            self.send_header("Content-Encoding", self._encodings[self.path])
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server on 127.0.0.1 within the context; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving_folder(folder: Path, encodings: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a web server that lists a folder and serves its files."""
    handler = functools.partial(_Folder, directory=str(folder), encodings=encodings or {})
    with serving(handler) as address:
        yield address


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
