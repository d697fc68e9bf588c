"""The commands at the top of cluster.yaml, from `ray up` to maps to `ray down`, without AWS.

What stands in for AWS is in ec2.py: moto for its interfaces, and for each instance a network stack,
processes and an SSH server of its own on this machine.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.end_to_end.ec2 import PROGRAMS
from tests.end_to_end.processes import (
    ROOT,
    Finished,
    finish,
    outcome,
    short_directory,
    started,
    wait_for,
)
from tests.outputs import check_each_image_once, check_equal_to_sequential

UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def what_is_missing() -> str:
    """Why this machine cannot play a region of AWS; empty when it can."""
    if os.geteuid() != 0:
        return "namespaces are made by root, and this is not root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in (*PROGRAMS, "unshare") if not shutil.which(name, path=path)]
    if missing:
        packages = sorted({PROGRAMS.get(name, "util-linux") for name in missing})
        return f"{', '.join(missing)} missing: apt-get install {' '.join(packages)}"
    devices = "ip link add bridge0 type bridge && ip link add veth0 type veth peer name veth1"
    trial = subprocess.run([*UNSHARE, "sh", "-c", devices], capture_output=True, text=True)
    if trial.returncode:
        return f"this machine makes no network namespaces: {trial.stderr.strip()}"
    return ""


MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@dataclass(frozen=True)
class Region:
    """A region of AWS on this machine, and a user's shell in it.

    Attributes:
        place: the user's directory, with cluster.yaml and what the machines keep.
        env: the user's environment.
        enter: the words before a command that is to run where the region is.
    """

    place: Path
    env: dict[str, str]
    enter: list[str]

    def run(self, *words: str, timeout: float = 180) -> Finished:
        """Run a command to its end, as the user would."""
        return finish([*self.enter, *words], self.env, timeout)

    def instances(self, kind: str) -> list[dict[str, Any]]:
        """What was ever launched of a type of node."""
        path = self.place / "instances.json"
        described: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        return [one for one in described if one["type"] == kind]

    def alive(self, kind: str) -> int:
        """How many instances of a type of node there are now."""
        return sum(one["state"] != "terminated" for one in self.instances(kind))


@pytest.fixture(scope="module")
def region(pictures: Path, model_dir: Path) -> Iterator[Region]:
    with ExitStack() as stack:
        place = stack.enter_context(short_directory())
        for folder in ("user/.ray", "user/tmp", "images", "model", "home"):
            (place / folder).mkdir(parents=True)
        shutil.copytree(pictures, place / "images", dirs_exist_ok=True)
        shutil.copytree(model_dir, place / "model", dirs_exist_ok=True)
        token = place / "user" / ".ray" / "auth_token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        folders = [str(place / "images"), str(place / "model")]
        # A shell as the first process: it buries the dead of the whole region.
        words = ["bash", "-c", '"$@"; exit $?', "-", sys.executable, "-m", "tests.end_to_end.ec2"]
        process = stack.enter_context(started([*UNSHARE, *words, str(place), *folders]))
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, outcome(process)
        yield Region(
            place,
            {
                **json.loads(first),
                "HOME": str(place / "user"),
                "TMPDIR": str(place / "user" / "tmp"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
                "RAY_AUTH_MODE": "token",
            },
            [
                *("nsenter", f"--target={first_process(process.pid)}", f"--wd={ROOT}"),
                *("--net", "--mount", "--pid"),
            ],
        )


def first_process(unshare: int) -> int:
    """The first process of the namespaces that a process of `unshare` has made."""
    [first] = psutil.Process(unshare).children()
    return first.pid


def cluster_file(region: Region) -> Path:
    """cluster.yaml with what cannot be had here: GPUs, and a machine image that moto knows."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for node in config["available_node_types"].values():
        node["node_config"]["ImageId"] = (
            "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
        )
    worker = config["available_node_types"]["gpu_worker"]
    # Ray adds the GPU of the instance's type by itself.
    worker["node_config"]["InstanceType"] = "m7i.large"
    worker["resources"] = {"CPU": 2}
    del worker["docker"]
    # All nodes share this machine's cores: one worker is as fast as eight.
    config["max_workers"] = worker["max_workers"] = 1
    # AWS has names of its own, and its instance profiles give the nodes their credentials.
    more = {name: value for name, value in region.env.items() if name.startswith("AWS_")}
    # What the set-up command installs is here already, and stays as it is.
    more |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # All nodes start on the cores of this machine, perhaps beside other tests.
    more |= {"RAY_raylet_start_wait_time_s": "180"}
    config["docker"]["run_options"] += [f"-e {name}={value}" for name, value in more.items()]
    config["idle_timeout_minutes"] = 0.3
    path = region.place / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def runtime_env_file(region: Region) -> Path:
    """runtime_env.yaml without its packages, which every node has: Ray would copy gigabytes."""
    config = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())
    del config["pip"]
    path = region.place / "runtime_env.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def documented(region: Region, cluster: str) -> dict[str, list[str]]:
    """The commands at the top of cluster.yaml, by their first words, with this test's names."""
    text = (ROOT / "cluster.yaml").read_text().partition("\ncluster_name")[0]
    lines = re.sub(r"\\\n#\s+", "", text).splitlines()
    names = {
        "cluster.yaml": cluster,
        "runtime_env.yaml": str(runtime_env_file(region)),
        "s3://BUCKET/images": "s3://images/images",
        "s3://BUCKET/maps": "s3://results/maps",
    }
    commands = {}
    for line in lines:
        if line.startswith("#   ray "):
            words = shlex.split(line.removeprefix("#"), comments=True)
            key = " ".join(words[1 : 3 if words[1] == "job" else 2])
            commands[key] = [names.get(word, word) for word in words]
    return commands


@pytest.mark.timeout(1200)
def test_the_documented_commands_lead_from_no_machine_to_maps_and_back(
    region: Region, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    cluster, seconds = str(cluster_file(region)), Seconds()
    commands = documented(region, cluster)
    assert {"up", "dashboard", "job submit", "down"} <= set(commands)

    checked = region.run(sys.executable, "-m", "deploy.check", cluster)
    assert checked.exit_code == 0, checked.stdout
    seconds.took("make cluster-check")

    up = region.run(*commands["up"], timeout=400)
    assert up.exit_code == 0, up.stdout + up.stderr
    assert region.alive("head") == 1
    assert not region.instances("gpu_worker")
    seconds.took("ray up")

    with started([*region.enter, *commands["dashboard"]], region.env) as tunnel:
        wait_for(lambda: "8265" in region.run("ss", "-Hltn").stdout, 60, "the tunnel", every=1)
        seconds.took("ray dashboard")
        submit = [*commands["job submit"], "--model", "s3://images/model"]
        with started([*region.enter, *submit], region.env) as job:
            wait_for(
                lambda: region.alive("gpu_worker") or job.poll() is not None,
                120,
                "the first worker",
            )
            seconds.took("a worker launched")
            finished = outcome(job, 400)
        assert finished.exit_code == 0, finished.stdout + finished.stderr
        assert "24 maps of 24 images" in finished.stdout
        seconds.took("maps")
        assert tunnel.poll() is None
    assert region.alive("head") == 1

    wait_for(lambda: not region.alive("gpu_worker"), 120, "the idle worker to go", every=0.5)
    seconds.took("no worker")

    down = region.run(*commands["down"])
    assert down.exit_code == 0, down.stdout + down.stderr
    assert not region.alive("head")
    seconds.took("ray down")
    print(seconds)

    copy = "import fsspec, sys; fsspec.filesystem('s3').get(*sys.argv[1:], recursive=True)"
    region.run(sys.executable, "-c", copy, "results/maps/", f"{tmp_path}/maps/")
    check_each_image_once(tmp_path / "maps", 24)
    stored = "s3://images/images"
    check_equal_to_sequential(
        tmp_path / "maps",
        model_dir,
        lambda uri: (pictures / uri.removeprefix(f"{stored}/")).read_bytes(),
    )


class Seconds:
    """How long each step took."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.steps: list[tuple[str, float]] = []

    def took(self, step: str) -> None:
        self.steps.append((step, time.monotonic() - self.begin))
        self.begin = time.monotonic()

    def __str__(self) -> str:
        return ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.steps)
