"""What end-to-end tests share: pictures with awkward names, what a log must not say."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import worker_nodes

STRANGE_NAMES = ("a b.jpg", "c#d.jpg", "e%20f.jpg", "g?h.jpg", "i+j&k.jpg", "ü🎈.jpg")


@pytest.fixture(scope="session")
def strange_pictures(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures, most with names that a careless URL parser gets wrong."""
    folder = tmp_path_factory.mktemp("strange")
    names = ("plain.png", *STRANGE_NAMES, "turned.jpg")
    stored = sorted(pictures.iterdir())
    chosen = [stored[2], *stored[4 : 4 + len(STRANGE_NAMES)], stored[3]]
    for path, name in zip(chosen, names, strict=True):
        shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="session")
def warm() -> Iterator[dict[str, str]]:
    """The environment in which a run joins a cluster that is there already, and starts no Ray.

    One node with two CPUs beside the head, which each test leaves free.
    """
    with worker_nodes(2) as cluster:
        yield {"RAY_ADDRESS": cluster["address"]}


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a token as ``ray get-auth-token --generate`` makes it."""
    path = tmp_path_factory.mktemp("token") / "auth_token"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path
