"""Addresses: a cluster that was given is used, or the run ends within seconds and says why."""

import contextlib
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray

from tests.end_to_end.processes import (
    Head,
    finish,
    outcome,
    ray_head,
    short_directory,
    started,
    wait_for,
)

Command = Callable[..., list[str]]
Answers = dict[str, tuple[float, str]]

# Each address in turn, in one process: most of a process's time is for importing Ray.
FIND = """
import json, sys, time
from job.cluster.address import find_place
from job.errors import JobError
found = {}
for address in sys.argv[1:]:
    begun = time.monotonic()
    try:
        answer = str(find_place(address or None))
    except JobError as error:
        answer = f"{type(error).exit_code}: {error}"
    found[address] = time.monotonic() - begun, answer
print(json.dumps(found))
"""


def places(*addresses: str, env: dict[str, str] | None = None) -> Answers:
    """Where a run would be done, by address: seconds it took to find out, and the answer."""
    finished = finish([sys.executable, "-c", FIND, *addresses], env)
    assert finished.exit_code == 0, finished.stderr
    assert finished.stderr == ""
    return {address: tuple(found) for address, found in json.loads(finished.stdout).items()}


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """The address of a server that says this to whoever connects, and nothing else."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


class Silent(BaseHTTPRequestHandler):
    """A handler that prints nothing, and serves nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The address of a web server."""
    server = HTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """The address of a server that never says anything."""
    with listening(b"") as address:
        yield address


@pytest.fixture(scope="module")
def nonsense() -> Iterator[str]:
    """The address of a server that says what nobody understands."""
    with listening(b"\x00\xff" * 500) as address:
        yield address


@pytest.fixture(scope="module")
def wrong(web: str, silent: str, nonsense: str) -> Answers:
    """What is said of addresses at which no head of a cluster is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    names = {
        "nobody": nobody,
        "web": web,
        "silent": silent,
        "nonsense": nonsense,
        "client": "ray://127.0.0.1:10001",
        "dashboard": "http://127.0.0.1:8265",
        "no port": "127.0.0.1",
        "bad port": "127.0.0.1:ray",
        "no such host": "no-such-host.invalid:6379",
    }
    found = places(*names.values())
    return {name: found[address] for name, address in names.items()}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "nothing listens there"),
        ("web", "what listens there is not the head of a Ray cluster"),
        ("silent", "did not answer as Ray within 5 s"),
        ("nonsense", "what listens there is not the head of a Ray cluster"),
        ("client", "Ray Client is not supported. Give the address of the head itself (127.0.0.1:6"),
        ("dashboard", "Give host:port, such as 127.0.0.1:6379, or submit the job"),
        ("no port", "Give host:port"),
        ("bad port", "Give host:port"),
        ("no such host", "the host's name has no address"),
    ],
)
def test_an_address_without_a_cluster_is_given_up_in_seconds(
    wrong: Answers, name: str, says: str
) -> None:
    seconds, answer = wrong[name]
    assert answer.startswith("1: --address "), answer
    assert says in answer
    assert seconds < 20, "five, on a machine that is not busy"


def test_a_run_says_it_in_one_sentence_and_leaves_nothing(
    job_command: Command, pictures: Path, tmp_path: Path, web: str
) -> None:
    finished = finish(job_command(pictures, tmp_path / "out"), {"RAY_ADDRESS": web})
    assert finished.exit_code == 1
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"error: RAY_ADDRESS {web}: what listens there is not the head of a Ray")
    assert not (tmp_path / "out").exists()


def test_a_run_that_waits_for_an_answer_can_be_stopped(
    job_command: Command, pictures: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with started(job_command(pictures, tmp_path / "out", "--address", address)) as process:
            server.settimeout(120)
            connection, _ = server.accept()  # it asks
            process.send_signal(signal.SIGTERM)
            told = time.monotonic()
            finished = outcome(process)
            connection.close()
    assert finished.exit_code == 130, finished.stderr
    assert time.monotonic() - told < 10
    (line,) = finished.stderr.splitlines()
    assert line.startswith("stopped: told to stop")


@pytest.mark.parametrize("delay", [0.1, 0.3, 1.0])
def test_a_run_can_be_stopped_while_it_loads_what_it_needs(
    job_command: Command, pictures: Path, tmp_path: Path, delay: float
) -> None:
    with started(job_command(pictures, tmp_path / "out")) as process:
        time.sleep(delay)
        # Before that the interpreter is not up, and nobody can answer.
        wait_for(lambda: answers(process.pid), 60, "the program to begin", every=0.01)
        process.send_signal(signal.SIGTERM)
        finished = outcome(process)
    assert finished.exit_code == 130, finished.stderr
    (line,) = finished.stderr.splitlines()
    assert line.startswith("stopped: told to stop")


def answers(process: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    status = Path(f"/proc/{process}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def note(place: Path, address: str) -> dict[str, str]:
    """The environment in which a cluster of this machine is found, as `ray start` leaves it."""
    file = place / "ray" / "ray_current_cluster"
    file.parent.mkdir(exist_ok=True)
    file.write_text(address)
    return {"RAY_TMPDIR": str(place)}


def test_without_an_address_ray_is_started_here_also_where_a_killed_head_has_left_its_own(
    web: str, silent: str
) -> None:
    with short_directory() as place:
        with socket.create_server(("127.0.0.1", 0)) as server:
            nobody = f"127.0.0.1:{server.getsockname()[1]}"
        for stale in (nobody, web):
            found = places("", "local", env=note(place, stale))
            assert {answer for _, answer in found.values()} == {"on Ray started here"}, stale
        found = places("", env=note(place, silent))
        assert "did not answer as Ray" in found[""][1], "a head that hangs, for all one can tell"


@pytest.mark.usefixtures("ray_session")
def test_the_ray_of_another_program_is_not_joined() -> None:
    (answer,) = {answer for _, answer in places("auto").values()}
    # Of this machine's user, or of tests that run at the same time.
    others = ("more than one Ray", "on a cluster", "asks for a token")
    if not any(other in answer for other in others):
        assert answer.startswith("1: --address auto: no Ray runs on this machine. Start one")
    assert str(ray.get_runtime_context().gcs_address) not in answer


@pytest.fixture(scope="module")
def head(token: Path) -> Iterator[Head]:
    """A Ray that asks for a token."""
    with ray_head(token, {}) as running:
        yield running


def test_a_cluster_is_joined_with_its_token_and_never_left_for_another_without(
    head: Head, token: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("0" * 64)
    home = {"HOME": str(tmp_path)}
    with short_directory() as place:
        here = note(place, head.address)
        let_in = places(head.address, "auto", "", env={**head.env, **here})
        for address, (_, answer) in let_in.items():
            assert answer == f"on a cluster of 1 node at {head.address}", address
        for env, says in [
            (
                {},
                "the cluster asks for a token, and none was sent. RAY_AUTH_MODE=token has it sent",
            ),
            (
                {**head.env, "RAY_AUTH_TOKEN_PATH": str(other)},
                "the cluster asks for a token, and the token that was sent is not its",
            ),
            ({"RAY_AUTH_MODE": "token"}, "no token was found to send"),
        ]:
            kept_out = places(head.address, "auto", "", env={**home, **here, **env})
            for address, (seconds, answer) in kept_out.items():
                assert answer.startswith("1: "), (address, answer)
                assert says in answer, address
                assert "RAY_AUTH_TOKEN_PATH, and in ~/.ray/auth_token" in answer
                assert seconds < 20
