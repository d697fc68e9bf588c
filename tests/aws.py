"""AWS on this machine: moto's server in a process of its own, apart from the tests' S3 endpoint."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.end_to_end.processes import ROOT, environment, free_ports


@dataclass(frozen=True)
class Aws:
    """A running moto server.

    Attributes:
        endpoint: its address, ``http://<host>:<port>``.
        region: where everything is.
    """

    endpoint: str
    region: str = "us-west-2"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which AWS's tools find it, and are let in."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self, service: str) -> Any:
        """A client of one of its services."""
        return boto3.client(
            service,
            region_name=self.region,
            endpoint_url=self.endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def post(self, path: str, body: bytes = b"") -> None:
        """Ask something of moto itself."""
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/{path}", body, headers)
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def moto_server(log: Path, host: str = "127.0.0.1") -> Iterator[Aws]:
    """Start moto, and stop it.

    Args:
        log: where it writes what it was asked.
        host: the address to listen on.
    """
    port = free_ports(1)
    words = [sys.executable, "-m", "moto.server", "--host", host, "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=environment())
        try:
            aws = Aws(f"http://{host}:{port}")
            _wait_for(aws, process, log)
            yield aws
        finally:
            process.kill()
            process.wait()


def _wait_for(aws: Aws, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{aws.endpoint}/moto-api/data.json", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"moto does not answer: {log.read_text()[-2000:]}")


def make_profiles(aws: Aws) -> None:
    """What `aws cloudformation deploy` does with the template."""
    names = {"InputBucket": "images", "OutputBucket": "results", "OutputPrefix": "maps"}
    aws.client("cloudformation").create_stack(
        StackName="ray-batch-segmentation",
        TemplateBody=(ROOT / "deploy" / "profiles.yaml").read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in names.items()],
    )
