"""Node check: whether local paths are the same files on every node that takes work.

A path without a scheme means what each node has there. Where that differs, images would be missing
on some nodes only, and maps would lie on others' disks.
"""

import contextlib
import os
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from job.errors import StorageError
from job.rows import Listed
from job.storage.local import as_named, stamp
from job.storage.location import PARTIAL, Location
from job.storage.opening import locate
from job.storage.refusals import REFUSALS, explain

# Seconds for all nodes to answer. One that does not is busy or going, and is met again when images
# are read there: see job.cluster.outage.
_ANSWER_WITHIN = 60.0


def check_nodes(witnesses: Sequence[Listed], output: Location | None = None) -> None:
    """Look from every node that takes work at files of a local INPUT, and at a local OUTPUT.

    Args:
        witnesses: files that this process has listed, of any storage.
        output: where maps will be written; None when nothing is to be written.

    Raises:
        StorageError: a node does not see them; names it, and says what helps.
    """
    # What changes at this moment would be another file on each node.
    local = [
        found
        for found in witnesses
        if found.uri.startswith("/") and not _trouble_with_input([found])
    ]
    writes = output is not None and output.is_local
    nodes = _others() if local or writes else {}
    if not nodes:
        return
    with _token(output if writes else None) as token:
        probes = {
            _probe.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(local, token): address
            for node, address in nodes.items()
        }
        answered, late = ray.wait(list(probes), num_returns=len(probes), timeout=_ANSWER_WITHIN)
        for probe in answered:
            with contextlib.suppress(ray.exceptions.RayError):  # a node that is going
                trouble = ray.get(probe)
                if trouble:
                    raise StorageError(f"node {probes[probe]} {trouble}")
        for probe in late:
            ray.cancel(probe, force=True)


def _others() -> dict[str, str]:
    """The nodes that take work, beside this process's own: their ids, and how to call them."""
    here = ray.get_runtime_context().get_node_id()
    return {
        node["NodeID"]: f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        for node in ray.nodes()
        if node["Alive"]
        and node["NodeID"] != here
        and (node["Resources"].get("CPU") or node["Resources"].get("GPU"))
    }


@contextlib.contextmanager
def _token(output: Location | None) -> Any:
    """A file under OUTPUT for as long as nodes are asked about it: its path and content."""
    if output is None:
        yield None
        return
    content = uuid.uuid4().hex
    file = output / f"nodes-{content}{PARTIAL}"
    try:
        file.write_bytes(content.encode())
        yield output.path, file.path, content
    except REFUSALS as error:
        raise StorageError(f"OUTPUT {output.uri} cannot be written: {explain(error)}") from error
    finally:
        with contextlib.suppress(*REFUSALS):
            file.delete()


@ray.remote(num_cpus=0, max_retries=0)
def _probe(witnesses: list[Listed], token: tuple[str, str, str] | None) -> str:
    """What is wrong with local paths on this node; nothing when they are what the driver sees."""
    return _trouble_with_input(witnesses) or _trouble_with_output(token)


_REMEDY = (
    "Mount the same folder at the same path on every node, or use an object storage such as s3://"
)


def _trouble_with_input(witnesses: list[Listed]) -> str:
    for found in witnesses:
        path = as_named(found.uri)
        try:
            with open(path, "rb") as file:
                if found.etag not in (None, stamp(os.fstat(file.fileno()))):
                    return f"has another file at {found.uri} than was listed. {_REMEDY}"
        except OSError as error:
            return f"does not see INPUT: {found.uri}: {explain(error)}. {_REMEDY}"
    return ""


def _trouble_with_output(token: tuple[str, str, str] | None) -> str:
    if token is None:
        return ""
    folder, path, content = token
    try:
        same = locate(path).read_bytes() == content.encode()
    except OSError as error:
        return f"does not see OUTPUT {folder}: {explain(error)}. {_REMEDY}"
    if not same:
        return f"has another folder at OUTPUT {folder}. {_REMEDY}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"may not write to OUTPUT {folder}. Give the job the right to, on every node"
    return ""
