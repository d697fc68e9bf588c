"""What end-to-end tests share: pictures with awkward names, what a log must not say."""

import secrets
import shutil
from pathlib import Path

import pytest
import ray

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
def warm(ray_session: None) -> dict[str, str]:
    """The environment in which a run joins the Ray that these tests share, and starts none."""
    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a token as ``ray get-auth-token --generate`` makes it."""
    path = tmp_path_factory.mktemp("token") / "auth_token"
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path
