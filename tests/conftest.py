"""What the tests share: a real Ray, a real S3 endpoint over HTTP, models and images made here."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if not Path("/dev/nvidiactl").exists():
    # Read when triton is first imported, by whichever test comes first: torch does it as well.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import fsspec
import numpy as np
import pytest
import ray
from PIL import Image

from job.storage.location import Location
from job.storage.opening import locate

LABELS = ("sky", "ground", "building ", "tree", "vehicle")
# Photographs and reference files outside the repository; tests that need them say so.
PHOTOS = Path(__file__).parents[2] / "shared" / "data"
needs_photos = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="needs the files in ../shared/data, outside the repository"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("-m"):
        return
    offline = pytest.mark.skip(reason="needs the Hugging Face Hub; ask for it with -m network")
    for item in items:
        if "network" in item.keywords:
            item.add_marker(offline)


def start_ray(**options: Any) -> None:
    """A quiet Ray of two CPUs in this process."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        **options,
    )


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for the whole session, started here and stopped here."""
    start_ray()
    yield
    ray.shutdown()


def make_model(directory: Path, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Path:
    """Save a tiny SegFormer with random weights in the Hub's format."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import (
        SegformerImageProcessorPil,
    )

    torch.manual_seed(seed)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 1, 2, 4],
        decoder_hidden_size=32,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = SegformerForSemanticSegmentation(config).eval()
    # Random heads favour one class everywhere; spread the scores so that maps have structure.
    with torch.no_grad():
        model.decode_head.classifier.weight.mul_(20)
    model.save_pretrained(directory)
    SegformerImageProcessorPil(size={"height": 96, "width": 96}).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SegFormer of five classes."""
    return make_model(tmp_path_factory.mktemp("model"))


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth random RGB picture, (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_pictures(directory: Path, count: int, seed: int = 0) -> Path:
    """Save pictures of many sizes as JPEG, some with an EXIF orientation, some grey, some PNG."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        height, width = (int(side) for side in random.integers(24, 140, 2))
        image = Image.fromarray(picture(seed + number, height, width))
        if number % 5 == 1:
            image = image.convert("L")
        if number % 7 == 2:
            image.convert("RGBA").save(directory / f"picture-{number:04d}.png")
            continue
        exif = Image.Exif()
        if number % 4 == 3:
            exif[0x0112] = 6
        image.save(directory / f"picture-{number:04d}.jpg", quality=92, exif=exif)
    return directory


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two dozen pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture
def job_command(model_dir: Path) -> Callable[..., list[str]]:
    """The command line of a run, as a user types it."""
    import sys

    def command(source: object, output: object, *options: str) -> list[str]:
        words = [sys.executable, "-m", "job", "run", str(source), str(output)]
        return [*words, "--model", str(model_dir), *options]

    return command


@pytest.fixture
def output(tmp_path: Path) -> Location:
    """An OUTPUT that does not exist yet."""
    return locate(str(tmp_path / "out"))


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is never waited for, where no power cut is looked at."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def six_files(tmp_path: Path) -> Path:
    """A folder with six files in one within it."""
    place = tmp_path / "in"
    (place / "deep").mkdir(parents=True)
    for number in range(6):
        (place / "deep" / f"{number}.jpg").write_bytes(f"image {number}".encode())
    return place


@pytest.fixture
def memory() -> str:
    """An empty folder in memory."""
    fs = fsspec.filesystem("memory")
    if fs.exists("/place"):
        fs.rm("/place", recursive=True)
    return "memory://place"


@pytest.fixture(scope="session")
def s3() -> Iterator["S3"]:
    """An S3 endpoint over HTTP on this machine, with one empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    os.environ.update(
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=endpoint,
    )
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    yield S3(endpoint)
    server.stop()


class S3:
    """A running S3 endpoint.

    Attributes:
        endpoint: its address, ``http://127.0.0.1:<port>``.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which a process finds it, as the AWS tools name the variables."""
        return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

    def upload(self, directory: Path, prefix: str) -> str:
        """Put a folder's files under a prefix of the bucket; returns its URI."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.endpoint)
        for path in sorted(directory.iterdir()):
            client.upload_file(str(path), "bucket", f"{prefix}/{path.name}")
        return f"s3://bucket/{prefix}"
