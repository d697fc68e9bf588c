"""Session: Ray for as long as a run takes, on a cluster or started on this machine."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil
import ray

from job.cluster import temporary_directory
from job.cluster.address import Place, find_place
from job.cluster.ray_internals import end_executors, find_temporary_directory, quiet_raylets
from job.cluster.stopping import TOLD
from job.cluster.submission import is_submitted
from job.errors import JobError, StoppedError, causes
from job.storage.refusals import ADVICE_OF_RAY

_PACKAGE = Path(__file__).parents[1]  # job, as workers import it
_EXECUTOR_ENDS_WITHIN = 10.0  # seconds: one look at what its tasks do


@contextlib.contextmanager
def cluster_session(place: Place | None = None) -> Iterator[None]:
    """Connect to a cluster, or start Ray here.

    A Ray that was initialised before is used and left as it is.

    Args:
        place: where to; by default what :func:`job.cluster.address.find_place` finds.

    Raises:
        JobError: a worker raised one: it comes through as itself, without Ray's traceback. Or Ray
            cannot be joined, or started.
    """
    ours = not ray.is_initialized()
    if ours:
        place = place or find_place()
        try:
            _connect(place)
        except BaseException:
            ray.shutdown()  # what has been started by then
            raise
    try:
        with quiet_raylets(), _plain_errors():
            yield
    except StoppedError:
        # Whoever has stopped the run may kill it soon: the last word comes first. Ray is left when
        # the process ends.
        ours = False
        raise
    finally:
        if ours:
            # What a run that has failed still executes would end the process: see end_process.
            end_executors(_EXECUTOR_ENDS_WITHIN)
            ray.shutdown()


def end_process(exit_code: int) -> NoReturn:
    """End the process of a run that was stopped, and the Ray that it has started here.

    Threads of Ray Data, and our own, may be at work still: whichever asks Ray for something while
    :func:`ray.shutdown` is under way ends the process with exit code 1, in C++ (Ray 2.60), and so
    does a raylet that ends in order. A cluster notices by itself that its driver has gone.
    """
    atexit.unregister(ray.shutdown)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(exit_code)


def _connect(place: Place) -> None:
    # Ray's own lines go to its log files; a job's log is for what a person can use.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Data's own actors trip a check that is logged as an error for each of them (Ray 2.60).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _without_stderr(), _keeping_signals():
        if place.address is not None:
            with _as_job_error(f"{place.address}: the cluster cannot be joined"):
                ray.init(
                    address=place.address, include_dashboard=False, runtime_env=_package(), **quiet
                )
            return
        temporary_directory.check()
        # Workers import this package from where it is: unpacked afresh for every session, it would
        # have its kernels compiled anew.
        root = str(_PACKAGE.parent)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        # Ray ends workers that have been idle for a second and are more than there are CPUs, and
        # starts others soon after: on a small machine that takes as long as decoding.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
        with _as_job_error(f"Ray did not start on this machine, in {find_temporary_directory()}"):
            ray.init(address="local", include_dashboard=False, **quiet)


def _package() -> dict[str, Any] | None:
    """A submitted job has brought its working directory along; any other brings this package."""
    return None if is_submitted() else {"py_modules": [str(_PACKAGE)]}


@contextlib.contextmanager
def _as_job_error(what: str) -> Iterator[None]:
    """Make a sentence of whatever ``ray.init`` raises: plain Exceptions, at places."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        why = (
            temporary_directory.explain(error)
            or " ".join(str(error).split())
            or type(error).__name__
        )
        raise JobError(f"{what}: {why}") from error


@contextlib.contextmanager
def _keeping_signals() -> Iterator[None]:
    """Put back the handler of SIGTERM that ``ray.init`` replaces by one that exits with 15."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code != signal.SIGTERM:
            raise
        raise StoppedError(TOLD) from None
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
            return type(behind)(ADVICE_OF_RAY.sub("", str(behind)).strip())
    return None
