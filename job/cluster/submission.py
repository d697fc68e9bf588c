"""Submission: what is different for the driver of a job that ``ray job submit`` has brought."""

import glob
import os

from job.errors import ConfigError

# What `ray job stop` waits between SIGTERM and SIGKILL, where nobody has set it.
WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
_RAYS_WAIT = 3.0
# Where Ray unpacks what was submitted, within its temporary directory; removed with the session,
# or when nothing uses it any more.
_UNPACKED = "/runtime_resources/"


def is_submitted() -> bool:
    """Whether this process is such a driver."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def seconds_to_stop() -> float | None:
    """Seconds from ``ray job stop`` to SIGKILL in a submitted job, else None."""
    if not is_submitted():
        return None
    try:
        return float(os.environ[WAIT_VARIABLE])
    except (KeyError, ValueError):
        return _RAYS_WAIT


def refuse_lost_results(name: str, path: str) -> None:
    """Refuse a place for results that Ray removes after the job.

    Args:
        name: of the argument or option, for the message.
        path: what it says.

    Raises:
        ConfigError: it is a relative path of a submitted job, or lies in what was submitted.
    """
    local = _local(path)
    if not is_submitted() or local is None:
        return
    place = os.path.realpath(local)
    if os.path.isabs(local) and _UNPACKED not in place:
        return
    raise ConfigError(
        f"{name} {path}: in a submitted job that is {place} on {os.uname().nodename}, which Ray"
        " deletes. Give a URI, such as s3://BUCKET/PREFIX, or the absolute path of a file system"
        " that every node has"
    )


def refuse_missing_input(path: str) -> None:
    """Refuse a relative INPUT of a submitted job that was not submitted with it.

    Raises:
        ConfigError: it says where it was looked for.
    """
    local = _local(path)
    if not is_submitted() or local is None or os.path.isabs(local):
        return
    if not os.path.exists(local) and not glob.glob(local):
        raise ConfigError(
            f"INPUT {path}: a submitted job finds only what was submitted with it (--working-dir),"
            f" and {os.path.realpath(local)} was not. Give a URI, such as s3://BUCKET/PREFIX, or"
            " the absolute path of a file system that every node has"
        )


def _local(path: str) -> str | None:
    scheme, separator, rest = path.partition("://")
    if not separator:
        return os.path.expanduser(path)
    return rest if scheme in ("file", "local") else None
