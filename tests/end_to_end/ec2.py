"""A region of AWS on this machine: ``python -m tests.end_to_end.ec2 PLACE FOLDER ...``.

Moto answers for AWS, and every instance that is launched there gets what a machine has: a network
stack with the addresses that AWS says it has, processes, a home and a temporary directory of its
own, an SSH server that knows the key pair, and a `docker`. It is gone when it is terminated.

To be started in network, mount and process namespaces of its own, which the nodes divide further:
then nothing of it reaches the machine's network, and all of it ends with its first process.
"""

import getpass
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.aws import Aws, make_profiles, moto_server
from tests.end_to_end.processes import wait_for

GATEWAY = "172.31.255.254"
PROGRAMS = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "ip": "iproute2"}
USER = "ubuntu"


def main() -> None:
    """Make the region, say where it is in a line of JSON, and run what is launched in it."""
    place, folders = Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]
    make_network()
    private_directories(place / "private")
    with moto_server(place / "moto.log", GATEWAY) as aws:
        fill(aws, folders)
        machines = Machines(place, aws)
        print(json.dumps(aws.environment), flush=True)
        while True:
            machines.follow()
            time.sleep(0.3)


def command(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def make_network() -> None:
    """A switch for the nodes, and a way to their public addresses, which AWS would translate."""
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "cloud", "type", "bridge")
    command("ip", "address", "add", f"{GATEWAY}/16", "dev", "cloud")
    command("ip", "link", "set", "cloud", "up")
    command("ip", "route", "add", "default", "dev", "cloud")


def private_directories(own: Path) -> None:
    """Files and directories of the region's own, where programs insist on a path."""
    # Names are asked for in vain at once, not after half a minute.
    own.mkdir()
    (own / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    binds = {Path("/tmp/ray"): own / "ray", Path("/etc/resolv.conf"): own / "resolv.conf"}
    for user in (getpass.getuser(), "root", USER):
        # Sockets of SSH connections, by Ray's name for the user.
        name = f"ray_ssh_{hashlib.sha256(user.encode()).hexdigest()[:10]}"
        binds[Path("/tmp") / name] = own / name
    for path, mine in binds.items():
        if not mine.exists():
            mine.mkdir()
            path.mkdir(parents=True, exist_ok=True)
        command("mount", "--bind", str(mine), str(path))


def fill(aws: Aws, folders: list[Path]) -> None:
    """The rights, by the template; two buckets; the folders' files in the first."""
    make_profiles(aws)
    iam = aws.client("iam")
    iam.create_role(RoleName="AWSServiceRoleForEC2Spot", AssumeRolePolicyDocument="{}")
    s3 = aws.client("s3")
    for name in ("images", "results"):
        place = {"LocationConstraint": aws.region}
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=place)
    for folder in folders:
        for path in sorted(folder.iterdir()):
            s3.upload_file(str(path), "images", f"{folder.name}/{path.name}")


class Machines:
    """The machines behind the instances.

    Args:
        place: where they keep their files, and ``instances.json`` tells what there is.
        aws: where instances are launched and terminated.
    """

    def __init__(self, place: Path, aws: Aws) -> None:
        self.place, self.aws = place, aws
        self.ec2 = aws.client("ec2")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.gone: set[str] = set()
        self.host_key = place / "host_key"
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.host_key))

    def follow(self) -> None:
        """Switch on what was launched, and off what was terminated."""
        described = []
        for reservation in self.ec2.describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                name, state = instance["InstanceId"], instance["State"]["Name"]
                described.append({"id": name, "state": state, "type": node_type(instance)})
                if state == "running" and name not in self.running:
                    self.switch_on(name, instance)
                elif state == "terminated" and name not in self.gone:
                    self.gone.add(name)
                    self.running[name].kill()
        news = self.place / "instances.json.new"
        news.write_text(json.dumps(described))
        news.rename(self.place / "instances.json")

    def switch_on(self, name: str, instance: dict[str, Any]) -> None:
        """Start a machine with the addresses and the key of an instance."""
        own = self.place / name
        for part in ("home/.ssh", "ray", "mounts", "bin"):
            (own / part).mkdir(parents=True)
        self.furnish(own, instance["KeyName"])
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = boot_script(self.place, own, instance)
        log = (own / "boot.log").open("w")
        machine = subprocess.Popen(
            [*words, "bash", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.running[name] = machine
        number = len(self.running)
        ours, outside = os.readlink("/proc/self/ns/net"), Path(f"/proc/{machine.pid}/ns/net")
        wait_for(lambda: os.readlink(outside) != ours, 10, "the network namespace of a node")
        link = f"node{number}"
        pair = ("type", "veth", "peer", "name", "eth0", "netns", str(machine.pid))
        command("ip", "link", "add", link, *pair)
        command("ip", "link", "set", link, "master", "cloud", "up")

    def furnish(self, own: Path, key_name: str) -> None:
        """A home with the key pair's public half, and the programs of an image with Ray inside."""
        [key] = self.ec2.describe_key_pairs(KeyNames=[key_name], IncludePublicKey=True)["KeyPairs"]
        keys = own / "home" / ".ssh" / "authorized_keys"
        keys.write_text(key["PublicKey"])
        keys.chmod(0o600)
        stand_in = Path(__file__).with_name("docker_stand_in.py")
        docker = own / "bin" / "docker"
        docker.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {stand_in} "$@"\n')
        docker.chmod(0o755)
        # Login shells, in which Ray runs its commands, begin with a PATH of their own.
        (own / "home" / ".bashrc").write_text(f"export PATH={node_path(own)}\n")
        lines = Path("/etc/passwd").read_text().splitlines()
        kept = [line for line in lines if line.split(":")[0] != USER]
        # The image's user, who is root here: no other may reach this machine's Python.
        kept.insert(0, f"{USER}:x:0:0::{self.place / 'home'}:/bin/bash")
        (own / "passwd").write_text("\n".join(kept) + "\n")
        (own / "sshd_config").write_text(
            f"HostKey {self.host_key}\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
            "PrintMotd no\nPrintLastLog no\nMaxStartups 100\nMaxSessions 100\n"
            f"SetEnv PATH={node_path(own)}\n"
            f"AuthorizedKeysFile {self.place / 'home' / '.ssh' / 'authorized_keys'}\n"
            "PidFile none\n"
        )


def node_path(own: Path) -> str:
    """PATH on a node: its `docker` before the machine's, and `ray` and `python` of these tests."""
    return (
        f"{own / 'bin'}:{Path(sys.executable).parent}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )


def node_type(instance: dict[str, Any]) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return tags.get("ray-user-node-type", "")


def boot_script(place: Path, own: Path, instance: dict[str, Any]) -> str:
    """What the first process of a machine does; its network card comes while it waits."""
    private, public = instance["PrivateIpAddress"], instance["PublicIpAddress"]
    binds = {
        "/tmp/ray": own / "ray",
        "/tmp/ray_tmp_mount": own / "mounts",
        str(place / "home"): own / "home",
        "/etc/passwd": own / "passwd",
    }
    lines = ["set -e", "mount --make-rprivate /"]
    for target, source in binds.items():
        if source.is_dir():
            lines.append(f"mkdir -p {shlex.quote(target)}")
        lines.append(f"mount --bind {shlex.quote(str(source))} {shlex.quote(target)}")
    lines += [
        "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd",
        "mount -t tmpfs tmpfs /dev/shm",
        "until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done",
        "ip link set lo up",
        f"ip address add {private}/16 dev eth0",
        f"ip address add {public}/32 dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {GATEWAY} src {private}",
        f"/usr/sbin/sshd -D -e -f {shlex.quote(str(own / 'sshd_config'))} &",
        # Not the server itself: whoever is first in a process namespace has to bury the dead.
        "wait",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
