"""A server that answers as the Hugging Face Hub does, for as much as fetching a model asks of it.

``team/model`` is there, with the revisions ``main`` and ``v1``; the others say what is wrong.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.servers import serving

COMMIT = hashlib.sha1(b"the commit of v1 and main").hexdigest()
_REFUSALS = {
    "team/missing": (404, "RepoNotFound"),
    "team/private": (401, "RepoNotFound"),
    "team/gated": (403, "GatedRepo"),
    "team/busy": (503, None),
}


@contextmanager
def fake_hub(model: Path) -> Iterator[str]:
    """Serve a model's files as ``team/model``; gives the address for ``HF_ENDPOINT``."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    with serving(type("Handler", (_Hub,), {"files": files})) as address:
        yield address


class Quiet(BaseHTTPRequestHandler):
    """A handler that prints nothing and answers HEAD as GET without the body."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError


class _Hub(Quiet):
    files: dict[str, bytes]

    def do_GET(self) -> None:
        words = self.path.split("?")[0].strip("/").removeprefix("api/models/").split("/")
        repository, kind, revision = "/".join(words[:2]), words[2], words[3]
        if repository in _REFUSALS:
            status, code = _REFUSALS[repository]
            self.answer(status, b"{}", **({"X_Error_Code": code} if code else {}))
        elif revision not in ("main", "v1", COMMIT):
            self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        elif kind == "revision":
            siblings = [{"rfilename": name} for name in self.files]
            self._json({"id": repository, "sha": COMMIT, "siblings": siblings})
        elif kind == "tree":
            self._json([self._entry(name) for name in self.files])
        else:
            body = self.files[words[4]]
            self.answer(200, body, ETag=f'"{_blob(body)}"', X_Repo_Commit=COMMIT)

    def _json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def _entry(self, name: str) -> dict[str, object]:
        body = self.files[name]
        return {"type": "file", "path": name, "size": len(body), "oid": _blob(body)}


def _blob(body: bytes) -> str:
    return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
