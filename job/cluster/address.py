"""Address: which Ray a run is for: the one it was given, one of this machine, or one of its own.

Ray itself waits for minutes at an address where something else listens, or starts a Ray of its own
where a token is missing. What is here asks first, and gives up within seconds.
"""

import contextlib
import logging
import os
import socket
import time
from dataclasses import dataclass

import grpc
import ray

from job.cluster.ray_internals import (
    RAY_VERSION,
    ask_head,
    build_address,
    find_addresses,
    find_nodes_here,
    find_noted_address,
    is_token_sent,
    parse_address,
    take_token,
)
from job.errors import JobError

_SECONDS = 5.0  # to answer one question, and to connect
_SECONDS_TO_START = 30.0  # for the first node of a head that has just been started
_TOKEN = (
    "RAY_AUTH_MODE=token has it sent; it is looked for in RAY_AUTH_TOKEN, in the file of"
    " RAY_AUTH_TOKEN_PATH, and in ~/.ray/auth_token"
)
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class NotRayError(JobError):
    """Something listens at an address that is no head of a Ray cluster."""


@dataclass(frozen=True)
class Place:
    """Where a run's work is done.

    Attributes:
        address: of the cluster to join; None to start Ray on this machine.
        nodes: how many the cluster has.
    """

    address: str | None = None
    nodes: int = 1

    def __str__(self) -> str:
        if self.address is None:
            return "on Ray started here"
        return (
            f"on a cluster of {self.nodes} node{'s' if self.nodes != 1 else ''} at {self.address}"
        )


def find_place(given: str | None = None) -> Place:
    """The cluster that was given, else the one that runs on this machine, else Ray started here.

    Args:
        given: ``host:port``, ``auto`` for the cluster of this machine, ``local`` for Ray of one's
            own; by default that of ``RAY_ADDRESS``.

    Raises:
        JobError: a cluster that was given, or that runs here, cannot be joined; says why.
    """
    if ray.is_initialized():
        nodes = sum(node["Alive"] for node in ray.nodes())
        joined = str(ray.get_runtime_context().gcs_address)
        if given not in (None, "auto", "local", joined):
            raise JobError(
                f"--address {given}: this program has joined the Ray at {joined} already. Leave the"
                " address out, or call ray.shutdown() first"
            )
        return Place(joined, nodes)
    name = "--address" if given else "RAY_ADDRESS"
    address = given or os.environ.get("RAY_ADDRESS")
    if address == "local":
        return Place()
    if address == "auto":
        return _running_here(f"{name} auto")
    if address:
        return _joined(_checked(name, address), f"{name} {address}")
    noted = find_noted_address()
    # `ray start` has left a note there; when its head was killed, nothing answers any more.
    if noted and _listens(noted):
        _take_token_of_this_machine()
        with contextlib.suppress(NotRayError):  # another program has its port by now
            said = f"the cluster of this machine at {noted}"
            return _joined(noted, said, "Give --address local to have Ray started here instead")
    return Place()


def _running_here(said: str) -> Place:
    """The cluster of this machine: the one that `ray start` has noted last, else the only one.

    A Ray that a program has started for itself is not noted, and not joined: it ends with it.
    """
    noted = find_noted_address()
    if noted and _listens(noted):
        found = {noted}
    else:
        found = {address for address in find_addresses() if _listens(address)}
    if not found:
        raise JobError(
            f"{said}: no Ray runs on this machine. Start one (ray start --head), give the address"
            " of another (host:port), or leave the address out to have Ray started here"
        )
    if len(found) > 1:
        raise JobError(
            f"{said}: more than one Ray runs on this machine, at {' and '.join(sorted(found))}."
            " Give the address of one of them"
        )
    (address,) = found
    _take_token_of_this_machine()
    return _joined(address, f"{said}: {address}")


def _take_token_of_this_machine() -> None:
    """Send the token in ~/.ray to a cluster of this machine, as Ray does when nobody forbids it."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn of what nobody has to do
    take_token()


def _checked(name: str, address: str) -> str:
    """``host:port`` of what was given.

    Raises:
        JobError: it is something else; says what to give instead.
    """
    scheme, _, rest = address.rpartition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest or "HOST"
    if scheme == "ray":
        raise JobError(
            f"{name} {address}: Ray Client is not supported. Give the address of the head itself"
            f" ({host}:6379) on one of the cluster's machines, or submit the job"
            f" (ray job submit --address http://{host}:8265)"
        )
    if scheme:
        raise JobError(
            f"{name} {address}: that is no address of a Ray head. Give host:port, such as"
            f" {host}:6379"
            + (
                f", or submit the job (ray job submit --address {address})"
                if "http" in scheme
                else ""
            )
        )
    try:
        parsed = parse_address(address)
    except ValueError:
        parsed = None
    if parsed is None or not parsed[1].isdigit() or not 0 < int(parsed[1]) < 65536 or not parsed[0]:
        raise JobError(
            f"{name} {address}: that is no address of a Ray head. Give host:port, such as"
            " 10.0.0.1:6379, auto for the Ray of this machine, or local for one of its own"
        )
    return str(build_address(*parsed))


def _listens(address: str) -> bool:
    try:
        _connect(address)
    except OSError:
        return False
    return True


def _connect(address: str) -> None:
    host, port = parse_address(address) or ("", "")
    socket.create_connection((host, int(port)), timeout=_SECONDS).close()


_WAY_OUT = "Check the address, or leave it out to have Ray started here"


def _joined(address: str, said: str, way_out: str = _WAY_OUT) -> Place:
    """The cluster at an address, once it has answered.

    Raises:
        JobError: it has not; says what is there instead.
    """
    try:
        _connect(address)
    except socket.gaierror as error:
        raise JobError(f"{said}: the host's name has no address ({error}). {way_out}") from error
    except TimeoutError as error:
        raise JobError(
            f"{said}: the host did not answer within {_SECONDS:g} s. Check the address and the"
            " firewall, or leave the address out to have Ray started here"
        ) from error
    except OSError as error:
        raise JobError(f"{said}: nothing listens there ({error}). {way_out}") from error
    return Place(address, _nodes(address, said, way_out))


def _nodes(address: str, said: str, way_out: str) -> int:
    """How many nodes a cluster has, one of them on this machine: a driver works through it.

    Raises:
        JobError: it has none here, for which Ray would look for a minute.
    """
    begun = time.monotonic()
    while True:
        nodes = _ask(address, said, way_out)
        if set(nodes) & find_nodes_here():
            return len(nodes)
        if time.monotonic() - begun > (_SECONDS if nodes else _SECONDS_TO_START):
            raise JobError(
                f"{said}: the cluster has {'no node on this machine' if nodes else 'no nodes'}, and"
                " a driver needs one here. Submit the job instead"
                " (ray job submit --address http://HEAD:8265), or make this machine a node of it"
                " (ray start --address=HEAD:6379)"
            )
        time.sleep(0.5)


def _ask(address: str, said: str, way_out: str) -> list[str]:
    """The ids of a cluster's live nodes."""
    try:
        head = ask_head(address, _SECONDS)
    except ray.exceptions.AuthenticationError as error:
        raise JobError(f"{said}: no token was found to send. {_TOKEN}") from error
    except RuntimeError as error:  # TLS is asked for, and its files are not named
        raise JobError(f"{said}: {' '.join(str(error).split())}") from error
    except grpc.RpcError as error:
        raise _refusal(error, said, way_out) from error
    if head.version and head.version != RAY_VERSION:
        raise JobError(
            f"{said}: its Ray is {head.version}, and this one {RAY_VERSION}. Install the same"
        )
    return head.nodes


def _refusal(error: grpc.RpcError, said: str, way_out: str) -> JobError:
    code = error.code()
    if code in _REFUSED:
        sent = "the token that was sent is not its" if is_token_sent() else "none was sent"
        return JobError(f"{said}: the cluster asks for a token, and {sent}. {_TOKEN}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return JobError(
            f"{said}: something listens there and did not answer as Ray within {_SECONDS:g} s:"
            f" another program, or a head that hangs. {way_out}"
        )
    return NotRayError(
        f"{said}: what listens there is not the head of a Ray cluster"
        f" ({code.name.lower()}: {_first_sentence(error)}). {way_out}"
    )


def _first_sentence(error: grpc.RpcError) -> str:
    return " ".join(str(error.details()).split())[:200]
