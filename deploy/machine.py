"""The machine that makes the cluster: its programs, the token, the files that go to the nodes."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.cluster_file import Config
from deploy.finding import Finding, ok, wrong

_PACKAGES = {"ssh": "openssh-client", "rsync": "rsync"}
_TOKEN = "~/.ray/auth_token"
_MAKE_TOKEN = "ray get-auth-token --generate && chmod 600 ~/.ray/auth_token"


def check_machine(config: Config, environment: Mapping[str, str]) -> list[Finding]:
    """Everything that `ray up` and `ray job submit` need of this machine."""
    return [
        *(check_program(name, environment) for name in _PACKAGES),
        check_mode(environment),
        check_token(environment),
        *check_files(config, environment),
    ]


def check_program(name: str, environment: Mapping[str, str]) -> Finding:
    """Ray runs it to reach the nodes, and without it ends in a traceback."""
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if found:
        return ok(name, found)
    return wrong(name, f"it is not on PATH: install it (apt-get install {_PACKAGES[name]})")


def check_mode(environment: Mapping[str, str]) -> Finding:
    """Without it `ray job submit` sends no token."""
    mode = environment.get("RAY_AUTH_MODE")
    if mode == "token":
        return ok("RAY_AUTH_MODE", "token")
    said = f"it is {mode}" if mode else "it is not set"
    return wrong(
        "RAY_AUTH_MODE", f"{said}, and the cluster asks for a token: export RAY_AUTH_MODE=token"
    )


def check_token(environment: Mapping[str, str]) -> Finding:
    """The file goes to every node; what Ray sends from here has to be the same."""
    path = _local(_TOKEN, environment)
    subject = "token"
    try:
        token, status = path.read_text().strip(), path.stat()
    except FileNotFoundError:
        return wrong(subject, f"{path} does not exist: {_MAKE_TOKEN}")
    except (OSError, UnicodeDecodeError) as error:
        return wrong(subject, f"{path} cannot be read: {error}")
    if not token:
        return wrong(subject, f"{path} is empty: remove it, then {_MAKE_TOKEN}")
    if status.st_mode & 0o077:
        said = f"{path} has permissions {status.st_mode & 0o777:04o}"
        return wrong(subject, f"{said}, for others too: chmod 600 {path}")
    if status.st_uid != os.getuid():
        return wrong(subject, f"{path} is another user's (uid {status.st_uid}): make your own")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if name in environment and _named_token(name, environment) != token:
            text = f"{name} names another than {path}, which the nodes get: unset {name}"
            return wrong(subject, text)
    return ok(subject, f"{path}, readable to you alone")


def _named_token(name: str, environment: Mapping[str, str]) -> str | None:
    if name == "RAY_AUTH_TOKEN":
        return environment[name].strip()
    try:
        return Path(environment[name]).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def check_files(config: Config, environment: Mapping[str, str]) -> list[Finding]:
    """What file_mounts copies to the nodes, paths taken from the current directory as Ray does."""
    mounted = set(config.get("file_mounts", {}).values()) - {_TOKEN}
    paths = {_local(local, environment) for local in mounted}
    missing = sorted(str(path) for path in paths if not os.access(path, os.R_OK))
    if missing:
        text = "cannot be read; paths in file_mounts start where you run `ray up`"
        return [wrong("files for the nodes", f"{', '.join(missing)} {text}")]
    return [ok("files for the nodes", ", ".join(sorted(map(str, paths))))] if paths else []


def _local(path: str, environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME", os.path.expanduser("~"))
    return Path(home) / path[2:] if path.startswith("~/") else Path(path)
