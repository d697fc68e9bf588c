"""Processes that these tests start: jobs as a user types them, and Ray clusters of their own."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """How a process ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a user's shell has: nothing that these tests, or others, have set for themselves."""
    ours = ("RAY_", "AWS_", "HF_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, **(more or {})}


@contextmanager
def short_directory() -> Iterator[Path]:
    """A place for Ray's sockets, whose paths may have 107 characters, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def started(
    words: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[str]]:
    """A process at the root of the repository; with all it has started, gone after the context.

    Ray that it starts for itself keeps its files in a directory of its own, removed likewise.
    """
    with ExitStack() as stack:
        own = {"RAY_TMPDIR": str(stack.enter_context(short_directory())), **(env or {})}
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=environment(own),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        stack.callback(_stop, process)
        yield process


@contextmanager
def worker_nodes(*cpus: int, gpus: int = 0) -> Iterator[dict[str, str]]:
    """A head without CPUs and a worker node for each number of them, each with so many GPUs.

    Gives its address, the id and the raylet's process number of the last worker node, and the
    number of the process that adds another node for each SIGUSR1.
    """
    command = [sys.executable, "-m", "tests.end_to_end.cluster", str(gpus), *map(str, cpus)]
    with started(command) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.communicate()
        yield json.loads(first)


def finish(
    words: Sequence[str],
    env: Mapping[str, str] | None = None,
    timeout: float = 180,
    cwd: Path = ROOT,
) -> Finished:
    """Run a process to its end."""
    with started(words, env, cwd) as process:
        return outcome(process, timeout)


def outcome(process: subprocess.Popen[str], timeout: float = 180) -> Finished:
    """Wait for a process that was started."""
    stdout, stderr = process.communicate(timeout=timeout)
    return Finished(process.returncode, stdout, stderr)


def _stop(process: subprocess.Popen[str]) -> None:
    # All at once: Ray's processes wait long for each other when they are asked to end.
    wait_for(lambda: not _killed(process.pid), 30, "the processes of a test to go")
    process.communicate()


def _killed(session: int) -> list[int]:
    found = members(session)
    for number in found:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    return found


def members(session: int) -> list[int]:
    """The live processes of a session; Ray gives its workers groups, but no sessions, of their own.

    Args:
        session: the number of the process that began it.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def can_work(process: int) -> bool:
    """Whether it is a process that could still write: anything but the agents that Ray's raylet
    leaves behind for a while when it is killed with its driver."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return b"Agent" not in command and b"agent" not in command


def wait_for(
    condition: Callable[[], object], seconds: float, what: str, every: float = 0.05
) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: naming what never was.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nothing listens on.

    They lie below those that the system hands out, so that nothing takes one in the meantime.
    """
    for _ in range(100):
        first = random.SystemRandom().randrange(11_000, 32_000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Head:
    """A running ``ray start --head`` that asks for a token.

    Attributes:
        address: of the cluster, for ``RAY_ADDRESS``.
        dashboard: where jobs are submitted.
        token: without which the dashboard answers nobody.
        env: what a process needs to be let in.
    """

    address: str
    dashboard: str
    token: str
    env: dict[str, str]


@contextmanager
def ray_head(token: Path, env: Mapping[str, str]) -> Iterator[Head]:
    """Start a head with two CPUs on 127.0.0.1, and stop it.

    Args:
        token: a file with the token that the cluster asks for.
        env: what its jobs find in their environment.
    """
    port = free_ports(110)
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with short_directory() as place:
        words = [
            f"{Path(sys.executable).parent}/ray",
            *("start", "--head", "--block", "--num-cpus=2"),
            *(f"--temp-dir={place}", f"--port={port}", "--disable-usage-stats"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={port + 1}"),
            *(f"--ray-client-server-port={port + 2}", f"--dashboard-agent-listen-port={port + 3}"),
            *(f"--min-worker-port={port + 10}", f"--max-worker-port={port + 109}"),
        ]
        with started(words, {**access, **env}) as process:
            head = Head(
                f"127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}", token.read_text(), access
            )
            jobs = f"{head.dashboard}/api/jobs/"
            wait_for(
                lambda: process.poll() is not None or get(jobs, head.token)[0] == 200,
                90,
                "the dashboard",
                every=0.5,
            )
            assert process.poll() is None, process.communicate()
            yield head


def get(url: str, token: str | None = None) -> tuple[int, bytes]:
    """What a server answers to a GET: status and body; status 0 when there is none."""
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
    except OSError:
        return 0, b""
