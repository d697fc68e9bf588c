"""Session: Ray for as long as a run takes, on whatever cluster is there, else on this machine."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private.services import find_bootstrap_address
from ray.data import DataContext

import job
from job.errors import JobError, causes


@contextlib.contextmanager
def cluster_session() -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS`` or of this machine, else start Ray here.

    A Ray that was initialised before is used and left as it is.

    Raises:
        JobError: a worker raised one: it comes through as itself, without Ray's traceback.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect()
    try:
        with _quiet_data(), _plain_errors():
            yield
    finally:
        if ours:
            ray.shutdown()


def _connect() -> None:
    # Ray's own lines go to its log files; a job's log is for what a person can use.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Data's own actors trip a check that is logged as an error for each of them (Ray 2.60).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    place = os.environ.get("RAY_ADDRESS") or find_bootstrap_address(None) or "local"
    _check_reachable(place)
    with _without_stderr(), _keeping_sigterm():
        if place != "local":
            with contextlib.suppress(ConnectionError):  # what `ray start` has left behind is gone
                ray.init(include_dashboard=False, runtime_env=_package(), **quiet)
                return
        # Workers import this package from where it is: unpacked afresh for every session, it would
        # have its kernels compiled anew.
        root = str(Path(job.__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        # Ray ends workers that have been idle for a second and are more than there are CPUs, and
        # starts others soon after: on a small machine that takes as long as decoding.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
        ray.init(address="local", include_dashboard=False, **quiet)


def _package() -> dict[str, Any] | None:
    """A submitted job has brought its working directory along; any other brings this package."""
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return None if submitted else {"py_modules": [str(Path(job.__file__).parent)]}


def _check_reachable(address: str) -> None:
    """Refuse an address that nothing answers at; Ray would try for minutes, and say nothing."""
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise JobError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}). Start one there, or unset"
            " RAY_ADDRESS to run on this machine alone"
        ) from error


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Put back the handler that ``ray.init`` replaces by one that ends in a stack trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep what Ray's C++ side prints while it starts off the terminal; errors are raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _quiet_data() -> Iterator[None]:
    context = DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    data_logger = logging.getLogger("ray.data")
    level = data_logger.level
    data_logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Ray 2.60 wants remote arguments by their names, and has none for max_retries.
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            # A bound on tasks is none the worse for there being fewer.
            warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks")
            yield
    finally:
        data_logger.setLevel(level)
        context.enable_progress_bars, context.print_on_execution_start = before


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except JobError as error:
        raise _job_error(error) or error from None
    except Exception as error:
        known = _job_error(error)
        if known is None:
            raise
        raise known from None


def _job_error(error: BaseException | None) -> JobError | None:
    """The JobError at the bottom of what Ray wrapped around it."""
    for behind in causes(error):
        if isinstance(behind, JobError) and not isinstance(behind, ray.exceptions.RayError):
            return behind
    return None
