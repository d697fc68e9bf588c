"""An HTTP proxy in front of an S3 endpoint that misbehaves as storage does, and counts how often.

What it lets through goes on unchanged. A client notices nothing but the faults.
"""

import http.client
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Event, Lock, Thread
from urllib.parse import unquote, urlsplit

# What may happen to a request instead of an answer: refused (slow_down, internal, too_many), the
# connection reset before it reaches storage (reset) or after it took effect there (lost), the body
# of the answer broken off (cut), an answer that is long in coming (stall).
KINDS = ("slow_down", "internal", "too_many", "reset", "lost", "cut", "stall")
_STATUS = {"slow_down": 503, "internal": 500, "too_many": 429}
_CODES = {
    200: "SlowDown",  # in the body of what began as a good answer, as copies end that fail
    403: "AccessDenied",
    404: "NoSuchKey",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
    507: "InsufficientStorage",
}
_HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    Attributes:
        method: of HTTP.
        target: path and query, as they were sent.
    """

    method: str
    target: str

    @property
    def path(self) -> str:
        """``bucket/key``, or the bucket alone."""
        return unquote(self.target.partition("?")[0][1:])

    @property
    def is_of_object(self) -> bool:
        """Whether it is about one object, and not about a bucket."""
        return bool(self.path.partition("/")[2])


@dataclass(frozen=True)
class Refusal:
    """An answer to give instead of the storage's.

    Attributes:
        status: of HTTP.
        code: of S3's error; empty for a web page, as proxies and portals have them.
        more: further elements of the error, as XML.
    """

    status: int
    code: str = ""
    more: str = ""

    @property
    def body(self) -> tuple[str, bytes]:
        """Its type and content."""
        if not self.code:
            page = f"<!DOCTYPE html><html><body><h1>{self.status}</h1><br>Ask IT.</body></html>"
            return "text/html", page.encode()
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{self.code}</Code>'
            f"<Message>the proxy says {self.code}</Message>{self.more}</Error>"
        )
        return "application/xml", text.encode()


# A status to refuse a request with, or a whole answer; None lets it be.
Rule = Callable[[Request], int | Refusal | None]


class FaultyProxy:
    """A server on 127.0.0.1 within its context.

    Args:
        upstream: the endpoint that answers.
        share: of the requests that something happens to.
        kinds: what may happen.
        seed: of the dice; which request meets which throw depends on their order.
        stall: seconds that a stalled answer takes longer.

    Attributes:
        endpoint: its address, ``http://127.0.0.1:<port>``.
        requests: all that came in.
        injected: how many were disturbed, by kind; refused by a rule, by status.
        rules: asked in turn about each request, before the dice.
        share, kinds, stall: as given; they may be changed on the way.
    """

    def __init__(
        self,
        upstream: str,
        *,
        share: float = 0.0,
        kinds: tuple[str, ...] = KINDS,
        seed: int = 0,
        stall: float = 1.0,
    ) -> None:
        self.requests: list[Request] = []
        self.injected: Counter[str] = Counter()
        self.rules: list[Rule] = []
        self.share = share
        self.stall = stall
        self.stopping = Event()
        self.kinds = kinds
        self._upstream = urlsplit(upstream)
        self._random = Random(seed)
        self._lock = Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def options(self) -> dict[str, str]:
        """Storage options that lead here, in processes with another environment as well."""
        return {"endpoint_url": self.endpoint, "key": "testing", "secret": "testing"}

    @property
    def failures(self) -> int:
        """Requests that got no good answer at all."""
        return sum(self.injected.values()) - self.injected["stall"]

    def count(self, kind: str) -> None:
        """Note a disturbance."""
        with self._lock:
            self.injected[kind] += 1

    def refuse(self, status: int | Refusal, method: str, prefix: str, *, after: int = 0) -> None:
        """Refuse requests until :attr:`rules` are cleared.

        Args:
            status: of the refusal, or all of it.
            method: of the requests; ``*`` for all.
            prefix: with which bucket and key begin.
            after: how many such requests are let through before.
        """
        seen = 0

        def rule(request: Request) -> int | Refusal | None:
            nonlocal seen
            if method not in ("*", request.method) or not request.path.startswith(prefix):
                return None
            seen += 1
            return status if seen > after else None

        self.rules.append(rule)

    def judge(self, request: Request) -> int | Refusal | str | None:
        """What is to happen to a request: a status or an answer, one of the kinds, or nothing."""
        with self._lock:
            self.requests.append(request)
            for rule in self.rules:
                status = rule(request)
                if status is not None:
                    return status
            if self._random.random() >= self.share:
                return None
            possible = [kind for kind in self.kinds if kind != "cut" or request.method == "GET"]
            return self._random.choice(possible)

    def forward(
        self, request: Request, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, str, list[tuple[str, str]], bytes]:
        """Ask the endpoint; status, reason, headers and body of its answer."""
        host, port = self._upstream.hostname, self._upstream.port
        connection = http.client.HTTPConnection(str(host), port, timeout=60)
        try:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in _passed_on(headers):
                connection.putheader(name, value)
            if body or request.method in ("POST", "PUT"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.reason, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _passed_on(headers: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        if name.lower() not in _HOP_BY_HOP:
            yield name, value


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients hang up, as they may."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyProxy

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""

    def _serve(self) -> None:
        body = self._body()
        request = Request(self.command, self.path)
        fault = self.proxy.judge(request)
        if isinstance(fault, int):
            self._refuse(Refusal(fault, _CODES[fault]), str(fault))
        elif isinstance(fault, Refusal):
            self._refuse(fault, fault.code or str(fault.status))
        elif fault in _STATUS:
            self._refuse(Refusal(_STATUS[fault], _CODES[_STATUS[fault]]), fault)
        elif fault == "reset":
            self._reset(fault)
        else:
            if fault == "stall":
                self.proxy.count(fault)
                self.proxy.stopping.wait(self.proxy.stall)
            answer = self.proxy.forward(request, self.headers.items(), body)
            if fault == "lost":
                self._reset(fault)
            else:
                self._answer(*answer, cut=fault == "cut")

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            """A trailer, such as a checksum that moto does not ask for."""

    def _refuse(self, refusal: Refusal, kind: str) -> None:
        self.proxy.count(kind)
        mime, body = refusal.body
        self._answer(refusal.status, refusal.code or "Refused", [("Content-Type", mime)], body)

    def _reset(self, kind: str) -> None:
        self.proxy.count(kind)
        self.close_connection = True
        # Lingering for no time turns the close into a reset; only the last reference closes.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _answer(
        self,
        status: int,
        reason: str,
        headers: list[tuple[str, str]],
        body: bytes,
        cut: bool = False,
    ) -> None:
        self.send_response_only(status, reason)
        for name, value in _passed_on(headers):
            self.send_header(name, value)
        length = str(len(body))
        if self.command == "HEAD":
            length = dict(headers).get("Content-Length", "0")
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and len(body) > 1:
            self.proxy.count("cut")
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)
