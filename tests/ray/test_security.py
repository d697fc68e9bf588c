"""What strangers hand in (models, results, names) is data: it is never run and leads nowhere."""

from pathlib import Path

import boto3
import pytest

from job import pipeline
from job.config import JobConfig
from tests.conftest import S3
from tests.hostile import originals
from tests.outputs import manifest, rows

KEYS = [
    *("../../up.jpg", "a/../../up.jpg", "./here.jpg", "a...jpg", "a/.../b.jpg"),
    *("a//b.jpg", "/rooted.jpg", "..%2f..%2fup.jpg", "a/%2e%2e/b.jpg"),
    *("~/home.jpg", "file:///tmp/x.jpg", "maps/x.jpg", "commits/x.pending.parquet.jpg"),
    *("a\\..\\up.jpg", "\x1b[2J.jpg", "$(touch x).jpg", "`touch x`.jpg", "x;y|z.jpg"),
]


@pytest.mark.usefixtures("ray_session")
def test_no_key_leads_to_a_file_outside_output(s3: S3, model_dir: Path, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=s3.endpoint)
    for key in KEYS:
        client.put_object(Bucket="bucket", Key=f"rooted/{key}", Body=originals()["jpg"])
    place = tmp_path / "a" / "b" / "out"
    config = JobConfig(
        input="s3://bucket/rooted",
        output=f"file://{place}",
        model=str(model_dir),
        storage_options={"endpoint_url": s3.endpoint, "key": "testing", "secret": "testing"},
        progress="none",
    )
    pipeline.run(config)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(place) for path in found)
    expected = {
        "README.md",
        "labels.json",
        "claims",
        "commits",
        "errors",
        "manifest",
        "maps",
        "runs",
    }
    assert {path.relative_to(place).parts[0] for path in found} <= expected
    listed = {row["uri"] for row in manifest(place)}
    assert listed == {f"s3://bucket/rooted/{key}" for key in KEYS}
    ended = [row["uri"] for folder in ("maps", "errors") for row in rows(place, folder)]
    assert sorted(ended) == sorted(listed)
    assert {row["uri"] for row in rows(place, "errors")} == set()
