"""The ways to run a job: alone, on a started Ray, submitted, on two nodes; local files and S3."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from ray._private.grpc_utils import init_grpc_channel
from ray._private.state import state
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from tests.conftest import S3, write_pictures
from tests.end_to_end.processes import (
    Finished,
    Head,
    finish,
    get,
    ray_head,
    wait_for,
    worker_nodes,
)
from tests.outputs import check_each_image_once, check_equal_to_sequential, live_claims, rows

Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def head(s3: S3, token: Path) -> Iterator[Head]:
    """A Ray with token authentication, whose jobs find the S3 endpoint in their environment."""
    with ray_head(token, s3.environment) as running:
        yield running


def check_quiet(finished: Finished, where: str = "on Ray started here") -> None:
    """Standard error says where it runs, then of images and nothing else; no noise anywhere."""
    first, *rest = finished.stderr.splitlines()
    assert first == where
    assert all("images" in line for line in rest), finished.stderr
    for noise in ("Traceback", "Warning", "WARN", "INFO", "raylet", "\r", "\x1b"):
        assert noise not in finished.stdout + finished.stderr


def check_good(finished: Finished, output: str, images: int) -> None:
    """The job did what was asked, and its summary says what and where."""
    assert finished.exit_code == 0, finished.stderr
    assert f"{images} maps of {images} images" in finished.stdout
    assert "errors  none" in finished.stdout
    assert f"{output}/maps/" in finished.stdout


def read_s3(s3: S3) -> Callable[[str], bytes]:
    """Reads an object by its key alone, as no URL parser would."""
    client = boto3.client("s3", endpoint_url=s3.endpoint)

    def read(uri: str) -> bytes:
        key = uri.removeprefix("s3://bucket/")
        return client.get_object(Bucket="bucket", Key=key)["Body"].read()

    return read


# Alone


def test_alone_it_starts_ray_itself_and_says_only_what_a_person_can_use(
    job_command: Command, pictures: Path, model_dir: Path, tmp_path: Path, ray_session: None
) -> None:
    output, drivers = tmp_path / "out", len(state.job_table())
    finished = finish(job_command(pictures, output))
    check_good(finished, str(output), 24)
    check_quiet(finished)
    assert "24 of 24 images to do" in finished.stderr
    assert "of 24 images (" in finished.stderr, "a line of progress"
    check_each_image_once(output, 24)
    check_equal_to_sequential(output, model_dir)
    assert len(state.job_table()) == drivers, "another program's own Ray is left alone"


def test_alone_with_everything_on_s3_and_any_character_in_keys(
    s3: S3, strange_pictures: Path, model_dir: Path
) -> None:
    source, model = s3.upload(strange_pictures, "alone/in"), s3.upload(model_dir, "alone/model")
    output = "s3://bucket/alone/out"
    finished = finish(job_words(source, output, model), s3.environment)
    check_good(finished, output, 8)
    check_quiet(finished)
    check_each_image_once(output, 8)
    names = {row["uri"].removeprefix(f"{source}/") for row in rows(output, "maps")}
    assert names == {path.name for path in strange_pictures.iterdir()}
    check_equal_to_sequential(output, model_dir, read_s3(s3))


def test_credentials_in_storage_options_reach_the_workers_and_show_up_nowhere(
    s3: S3, strange_pictures: Path, model_dir: Path
) -> None:
    source, model = s3.upload(strange_pictures, "keys/in"), s3.upload(model_dir, "keys/model")
    output, secret = "s3://bucket/keys/out", "a-secret-that-nobody-may-see"
    options = {"endpoint_url": s3.endpoint, "key": "testing", "secret": secret}
    words = job_words(source, output, model, "--storage-options", json.dumps(options))
    finished = finish(words)
    check_good(finished, output, 8)
    check_each_image_once(output, 8)
    assert secret not in finished.stdout + finished.stderr
    client = boto3.client("s3", endpoint_url=s3.endpoint)
    written = client.list_objects_v2(Bucket="bucket", Prefix="keys/out/")["Contents"]
    assert any("/runs/" in found["Key"] for found in written)
    for found in written:
        content = client.get_object(Bucket="bucket", Key=found["Key"])["Body"].read()
        assert secret.encode() not in content, found["Key"]


def job_words(source: str, output: str, model: str, *options: str) -> list[str]:
    """The command line of a run, with a model that is not on this machine."""
    words = [sys.executable, "-m", "job", "run", source, output, "--model", model, *options]
    return [*words, "--workers=1"]  # which loads more than it does here


# On a Ray that was started before


def test_on_a_started_ray_it_joins_and_leaves_it_running(
    head: Head, job_command: Command, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    env = {**head.env, "RAY_ADDRESS": head.address}
    finished = finish(job_command(pictures, output), env)
    check_good(finished, str(output), 24)
    check_quiet(finished, f"on a cluster of 1 node at {head.address}")
    check_each_image_once(output, 24)
    check_equal_to_sequential(output, model_dir)
    assert get(f"{head.dashboard}/api/jobs/", head.token)[0] == 200, "still there"


def submit(head: Head, *words: str, wait: bool = True) -> Finished:
    """``ray job submit`` as the README has it."""
    command = [f"{Path(sys.executable).parent}/ray", "job", "submit", "--address", head.dashboard]
    if not wait:
        command.append("--no-wait")
    package = ["--working-dir", ".", "--runtime-env", "runtime_env.yaml"]
    return finish([*command, *package, "--", *words], head.env, timeout=500)


def job_log(head: Head, submitted: Finished) -> str:
    """What a submitted job has said, as the dashboard shows it."""
    (job,) = set(re.findall(r"raysubmit_\w+", submitted.stdout))
    status, body = get(f"{head.dashboard}/api/jobs/{job}/logs", head.token)
    assert status == 200
    return json.loads(body)["logs"]


def test_submitted_it_takes_images_from_s3_to_maps_on_s3(
    head: Head, s3: S3, strange_pictures: Path, model_dir: Path
) -> None:
    source, model = s3.upload(strange_pictures, "submit/in"), s3.upload(model_dir, "submit/model")
    output = "s3://bucket/submit/out"
    finished = submit(head, "python", "-m", "job", "run", source, output, "--model", model)
    check_good(finished, output, 8)
    log = job_log(head, finished)
    assert "8 of 8 images to do" in log
    assert "8 maps of 8 images" in log
    for noise in ("\r", "\x1b", "Traceback", "Warning", "WARN", "raylet", "it/s"):
        assert noise not in log
    check_each_image_once(output, 8)
    check_equal_to_sequential(output, model_dir, read_s3(s3))


def test_submitted_job_that_fails_says_why_in_its_log_and_in_its_exit_status(
    head: Head, s3: S3, model_dir: Path
) -> None:
    model = s3.upload(model_dir, "submit/model")
    words = ["python", "-m", "job", "run", "s3://bucket/nowhere", "s3://bucket/submit/none"]
    finished = submit(head, *words, "--model", model)
    assert finished.exit_code == 1
    (said,) = job_log(head, finished).splitlines()[-1:]
    assert said.startswith("error: INPUT s3://bucket/nowhere: nothing is there. Check")
    assert said in finished.stdout
    assert "Traceback" not in finished.stdout + finished.stderr


def test_job_that_is_stopped_keeps_what_it_has_and_says_so(
    head: Head, model_dir: Path, tmp_path: Path
) -> None:
    source, output = write_pictures(tmp_path / "in", 500, seed=300), tmp_path / "out"
    words = ["python", "-m", "job", "run", str(source), str(output), "--model", str(model_dir)]
    small = ["--images-per-file=4", "--images-per-task=4"]
    submitted = submit(head, *words, *small, wait=False)
    (job,) = set(re.findall(r"raysubmit_\w+", submitted.stdout))
    wait_for(lambda: any(output.glob("maps/*.parquet")), 240, "the first maps")
    ray_words = [f"{Path(sys.executable).parent}/ray", "job", "stop", "--address", head.dashboard]
    stopped = finish([*ray_words, job], head.env)
    assert "was stopped" in stopped.stdout + stopped.stderr
    (receipt,) = [json.loads(path.read_text()) for path in (output / "runs").iterdir()]
    assert receipt["status"] == "stopped"
    assert receipt["maps"] == sum(1 for _ in committed(output))
    assert 0 < receipt["maps"] < 500
    said = f"stopped: {receipt['maps']} of 500 images are committed; the same command goes on"
    assert job_log(head, submitted).splitlines()[-1] == said
    assert live_claims(output) == []

    resumed = finish([sys.executable, *words[1:]], {**head.env, "RAY_ADDRESS": head.address})
    assert resumed.exit_code == 0, resumed.stderr
    check_each_image_once(output, 500)
    check_equal_to_sequential(output, model_dir)


def committed(output: Path) -> Iterator[int]:
    """The ids in the commit records of an OUTPUT."""
    for path in (output / "commits").glob("*.parquet"):
        yield from pq.read_table(path)["id"].to_pylist()


def test_cluster_answers_nobody_without_its_token(head: Head) -> None:
    assert get(f"{head.dashboard}/api/jobs/")[0] == 401
    assert get(f"{head.dashboard}/api/jobs/", "0" * 64)[0] in (401, 403)


# On two nodes


def test_on_two_nodes_the_head_does_none_of_the_work(
    job_command: Command, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = job_command(pictures, output, "--workers", "1")
    with worker_nodes(2) as cluster:
        finished = finish(words, {"RAY_ADDRESS": cluster["address"]})
        ran = tasks(cluster["address"])
    check_good(finished, str(output), 24)
    check_quiet(finished, f"on a cluster of 2 nodes at {cluster['address']}")
    check_each_image_once(output, 24)
    check_equal_to_sequential(output, model_dir)
    for stage in ("Read", "MapWorker", "MapBatches(AttemptWriter)"):
        nodes = {node for name, node in ran if name.startswith(stage) and node}
        assert nodes == {cluster["worker"]}, stage


def tasks(address: str) -> list[tuple[str, str]]:
    """The name and the node of every task that a cluster remembers."""
    stub = gcs_service_pb2_grpc.TaskInfoGcsServiceStub(init_grpc_channel(address))
    request = gcs_service_pb2.GetTaskEventsRequest()  # type: ignore[attr-defined]  # made at run time
    reply = stub.GetTaskEvents(request, timeout=30)
    return [
        (event.task_info.name, event.state_updates.node_id.hex()) for event in reply.events_by_task
    ]
