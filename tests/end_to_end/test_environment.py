"""Faults of the environment: credentials, clocks, proxies, nodes. No image is blamed for them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from job.cli.main import main
from tests.conftest import S3, write_pictures
from tests.end_to_end.processes import ROOT, finish, outcome, started, wait_for, worker_nodes
from tests.faults import FaultyProxy, Refusal, Request
from tests.outputs import check_each_image_once, rows

IMAGES = 16
# One predictor: what it loads takes longer than what it does here.
ONE = "--workers=1"
SMALL = ("--images-per-task=2", "--batch-size=2", "--images-per-file=2", "--progress=none")
Cli = Callable[..., int]
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures."""
    return write_pictures(tmp_path_factory.mktemp("some"), IMAGES, seed=700)


@pytest.fixture
def cli(ray_session: None) -> Iterator[Cli]:
    """The command line, in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *words: main([str(word) for word in words])
    signal.signal(signal.SIGTERM, handler)


def words(proxy: FaultyProxy, source: str, output: object, model: Path) -> list[str]:
    storage = ("--storage-options", json.dumps(proxy.options), "--storage-attempts=2")
    return ["run", source, str(output), "--model", str(model), *SMALL, ONE, *storage]


def check_sentence(said: str, *parts: str) -> None:
    last = said.splitlines()[-1]
    assert last.startswith("error: "), said
    for part in (*parts, "the same command goes on"):
        assert part in last, said
    for noise in ("Traceback", "ray::", "RayTaskError", "Failed to", ".py"):
        assert noise not in said


def maps(output: object) -> int:
    return len(rows(output, "maps"))


# Object storage


# All others are in tests/s3/test_fetching.py.
FAULTS = [
    (Refusal(400, "ExpiredToken"), "the credentials have expired ("),
    (Refusal(403, "AccessDenied"), "nothing of what was listed may be read: permission denied"),
    (Refusal(403), "something else that is not the storage, has answered HTTP 403"),
]


def test_what_is_wrong_with_credentials_clocks_or_proxies_blames_no_image(
    s3: S3, some: Path, model_dir: Path, cli: Cli, capfd: Said
) -> None:
    source, output = s3.upload(some, "blameless/in"), "s3://bucket/blameless/out"
    with FaultyProxy(s3.endpoint) as proxy:
        command = words(proxy, source, output, model_dir)
        done = 0
        for refusal, reason in FAULTS:
            proxy.rules = []
            proxy.refuse(refusal, "GET", "bucket/blameless/in/", after=2)
            capfd.readouterr()
            assert cli(*command) == 3, capfd.readouterr().err
            check_sentence(capfd.readouterr().err, "INPUT s3://bucket/blameless/in", reason)
            assert rows(output, "errors") == [], refusal
            assert done <= maps(output) < IMAGES
            done = maps(output)
        assert done, "what was read before counts"
        proxy.rules = []
        assert cli(*command) == 0, capfd.readouterr().err
    check_each_image_once(output, IMAGES)
    assert maps(output) == IMAGES


def test_too_many_faults_in_a_row_end_a_run_early_and_keep_what_it_has(
    s3: S3, model_dir: Path, cli: Cli, capfd: Said, tmp_path: Path
) -> None:
    images = 160
    source = s3.upload(write_pictures(tmp_path / "in", images, seed=900), "early/in")
    output = "s3://bucket/early/out"
    with FaultyProxy(s3.endpoint) as proxy:
        proxy.refuse(Refusal(400, "ExpiredToken"), "GET", "bucket/early/in/", after=12)
        assert cli(*words(proxy, source, output, model_dir)) == 3
        check_sentence(capfd.readouterr().err, "have expired", "The run ends early")
        asked = {request.path for request in proxy.requests if "/early/in/" in request.path}
        assert len(asked) < images - 40, "it does not go through all of them"
        assert rows(output, "errors") == []
        assert maps(output) == 12
        (receipt,) = receipts(output)
        assert (receipt["status"], receipt["maps"]) == ("failed", 12)
        assert "have expired" in receipt["message"]


def receipts(output: str) -> list[dict[str, Any]]:
    client = boto3.client("s3")
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/runs/")["Contents"]
    return [
        json.loads(client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
        for entry in found
    ]


def test_credentials_that_expire_for_everything_end_in_their_sentence(
    s3: S3, some: Path, model_dir: Path, warm: dict[str, str]
) -> None:
    source, output = s3.upload(some, "everything/in"), "s3://bucket/everything/out"
    with FaultyProxy(s3.endpoint) as proxy:

        def expire(request: Request) -> Refusal | None:
            seen.append(request)
            return Refusal(400, "ExpiredToken") if has_begun() else None

        def has_begun() -> bool:
            return any(request.path.startswith("bucket/everything/out/maps/") for request in seen)

        seen: list[Request] = []
        proxy.rules.append(expire)
        command = [sys.executable, "-m", "job", *words(proxy, source, output, model_dir)]
        finished = finish(command, warm)
        assert finished.exit_code == 3, finished.stderr
        assert "the credentials have expired" in finished.stderr.splitlines()[-1]
        assert "Traceback" not in finished.stderr
        proxy.rules = []
        finished = finish(command, warm)
    assert finished.exit_code == 0, finished.stderr
    check_each_image_once(output, IMAGES)
    assert maps(output) == IMAGES


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal(400, "ExpiredToken"), "the credentials have expired ("),
        (Refusal(403, "RequestTimeTooSkewed"), "Set the clock"),
        (Refusal(407), "Check HTTPS_PROXY"),
    ],
    ids=["expired", "clock", "proxy"],
)
def test_a_listing_says_the_same_of_them(
    s3: S3, model_dir: Path, cli: Cli, capfd: Said, tmp_path: Path, refusal: Refusal, reason: str
) -> None:
    with FaultyProxy(s3.endpoint) as proxy:
        proxy.refuse(refusal, "*", "bucket")
        assert cli(*words(proxy, "s3://bucket/listing/in", tmp_path / "out", model_dir)) == 3
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: INPUT s3://bucket/listing/in cannot be listed: ")
    assert reason in last


def test_credentials_in_a_file_are_read_again_when_they_are_refused(
    s3: S3, some: Path, model_dir: Path, tmp_path: Path
) -> None:
    source, output = s3.upload(some, "renewed/in"), tmp_path / "out"
    file = tmp_path / "credentials"

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=testing\n")

    class Checking(FaultyProxy):
        """Takes the first key for a while, then only the second."""

        taken = 0

        def forward(self, request: Any, headers: Any, body: bytes) -> Any:
            if "/renewed/in/" in request.target and request.method == "GET":
                self.taken += 1
                if self.taken == 4:
                    write("second")
                if self.taken >= 4 and "Credential=first" in dict(headers)["Authorization"]:
                    self.count("ExpiredToken")
                    kind, page = Refusal(400, "ExpiredToken").body
                    return 400, "ExpiredToken", [("Content-Type", kind)], page
            return super().forward(request, headers, body)

    write("first")
    with Checking(s3.endpoint) as proxy:
        env = {
            "AWS_SHARED_CREDENTIALS_FILE": str(file),
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        run = ["run", source, str(output), "--model", str(model_dir), *SMALL, ONE]
        finished = finish([sys.executable, "-m", "job", *run], env)
        assert proxy.injected["ExpiredToken"] > 0
    assert finished.exit_code == 0, finished.stderr
    check_each_image_once(output, IMAGES)
    assert maps(output) == IMAGES


def test_an_archived_image_is_a_row_that_says_what_to_do(
    s3: S3, some: Path, model_dir: Path, cli: Cli, tmp_path: Path
) -> None:
    source, output = s3.upload(some, "archived/in"), tmp_path / "out"
    name = sorted(path.name for path in some.iterdir())[5]
    with FaultyProxy(s3.endpoint) as proxy:
        more = "<StorageClass>GLACIER</StorageClass>"
        refusal = Refusal(403, "InvalidObjectState", more)
        proxy.refuse(refusal, "GET", f"bucket/archived/in/{name}")
        command = [*words(proxy, source, output, model_dir), "--max-error-rate=0.5"]
        assert cli(*command) == 0
        (row,) = rows(output, "errors")
        assert (row["error_type"], row["retryable"]) == ("archived", True)
        assert row["message"].startswith("archived (GLACIER): restore it first")
        proxy.rules = []
        assert cli(*command, "--retry-errors") == 0
    assert maps(output) == IMAGES


def test_images_of_an_earlier_input_are_fetched_from_where_they_are(
    s3: S3, some: Path, model_dir: Path, cli: Cli, tmp_path: Path
) -> None:
    source, output, local = s3.upload(some, "earlier/in"), tmp_path / "out", tmp_path / "in"
    local.mkdir()
    names = sorted(path.name for path in some.iterdir())
    for name in names[:3]:
        shutil.copy(some / name, local / f"local-{name}")
    with FaultyProxy(s3.endpoint) as proxy:
        proxy.refuse(Refusal(403, "InvalidObjectState"), "GET", f"bucket/earlier/in/{names[5]}")
        proxy.refuse(Refusal(400, "ExpiredToken"), "GET", f"bucket/earlier/in/{names[14][:-4]}")
        assert cli(*words(proxy, source, output, model_dir)) in (1, 3)
        assert maps(output) < IMAGES
        proxy.rules = []
        assert cli(*words(proxy, str(local), output, model_dir), "--retry-errors") == 0
    assert maps(output) == IMAGES + 3
    assert len({row["id"] for row in rows(output, "maps")}) == IMAGES + 3


# Local paths on several nodes


can_hide = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
    ).returncode
    != 0
    if shutil.which("unshare")
    else True,
    reason="needs `unshare --mount` and the right to mount (root, CAP_SYS_ADMIN)",
)


@contextmanager
def node_without(folders: list[Path], address: str) -> Iterator[int]:
    """One more node of a cluster, with two CPUs, that has empty folders there.

    Gives the number of its process, in whose mount namespace its workers are.
    """
    hide = "".join(f"mount -t tmpfs none '{folder}' && " for folder in folders)
    ray = f"{Path(sys.executable).parent}/ray"
    start = f"{hide}exec '{ray}' start --address={address} --num-cpus=2 --block"
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", start]
    with started(command, {"PYTHONPATH": str(ROOT)}) as process:
        wait_for(lambda: nodes(address) == 3 or process.poll() is not None, 120, "the node")
        assert process.poll() is None, process.communicate()
        yield process.pid


def nodes(address: str) -> int:
    """The live nodes of a cluster."""
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(init_grpc_channel(address))
    request = gcs_service_pb2.GetAllNodeInfoRequest()  # type: ignore[attr-defined]  # made at run time
    reply = stub.GetAllNodeInfo(request, timeout=10)
    return sum(node.state == 0 for node in reply.node_info_list)


@dataclass(frozen=True)
class Partly:
    """A cluster of a head and two nodes, one of which does not see all folders.

    Attributes:
        address: of the cluster.
        node: the process in whose mount namespace that node's workers are.
        hidden: the folder whose folders ``in`` and ``out`` are empty there.
    """

    address: str
    node: int
    hidden: Path


@pytest.fixture(scope="module")
def partly(some: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partly]:
    hidden = tmp_path_factory.mktemp("hidden")
    shutil.copytree(some, hidden / "in")
    (hidden / "out").mkdir()
    with (
        worker_nodes(1) as cluster,
        node_without([hidden / "in", hidden / "out"], cluster["address"]) as node,
    ):
        yield Partly(cluster["address"], node, hidden)


@can_hide
@pytest.mark.parametrize("hidden", ["in", "out"])
def test_a_node_that_does_not_see_a_local_path_is_named_before_anything_is_done(
    job_command: Callable[..., list[str]], some: Path, tmp_path: Path, hidden: str, partly: Partly
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(some, source)
    output.mkdir()
    if hidden == "in":
        source = partly.hidden / "in"
    else:
        output = partly.hidden / "out"
    finished = finish(job_command(source, output), {"RAY_ADDRESS": partly.address})
    assert finished.exit_code == 3, finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("error: node ")
    assert f"does not see {'INPUT' if hidden == 'in' else 'OUTPUT'}" in last
    assert "Mount the same folder at the same path on every node" in last
    assert "Traceback" not in finished.stderr
    assert not list(output.glob("maps/*"))
    assert not list(output.glob("nodes-*"))


@can_hide
def test_a_mount_that_goes_away_on_one_node_blames_no_image(
    job_command: Callable[..., list[str]], tmp_path: Path, partly: Partly
) -> None:
    images = 96
    source, output = write_pictures(tmp_path / "in", images, seed=1200), tmp_path / "out"
    # Two CPUs, so that the predictor, which loads its images, is on the node in question.
    command = job_command(source, output, *SMALL, "--cpus-per-worker=2")
    env = {"RAY_ADDRESS": partly.address}
    with started(command, env) as process:
        wait_for(lambda: any(output.glob("runs/*.json")), 240, "the work to begin", every=0.01)
        enter = ["nsenter", f"--target={partly.node}", "--mount"]
        subprocess.run([*enter, "mount", "-t", "tmpfs", "none", str(source)], check=True)
        finished = outcome(process)
    assert rows(output, "errors") == []
    assert finished.exit_code == 3, finished.stdout + finished.stderr
    check_sentence(finished.stderr, f"INPUT {source}", "on node", "Check the mount")
    assert maps(output) < images
    subprocess.run([*enter, "umount", str(source)], check=True)
    again = finish(command, env)
    assert again.exit_code == 0, again.stderr
    check_each_image_once(output, images)
    assert maps(output) == images


def test_an_input_that_is_gone_is_no_fault_of_its_images(
    some: Path, model_dir: Path, cli: Cli, capfd: Said, tmp_path: Path
) -> None:
    source, output, away = tmp_path / "in", tmp_path / "out", tmp_path / "away"
    shutil.copytree(some, source)
    from job.inputs import manifest

    freeze = manifest.freeze

    def freeze_and_lose(*arguments: Any, **options: Any) -> Any:
        frozen = freeze(*arguments, **options)
        os.rename(source, away)
        return frozen

    command = ["run", source, output, "--model", model_dir, *SMALL, ONE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("job.pipeline.freeze", freeze_and_lose)
        assert cli(*command) == 3
    check_sentence(capfd.readouterr().err, f"INPUT {source}", "is not there. Mount it")
    assert rows(output, "errors") == []
    os.rename(away, source)
    assert cli(*command) == 0
    check_each_image_once(output, IMAGES)
