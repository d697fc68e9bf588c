"""Manifest: what is listed, in which order it is numbered, and that numbers never change."""

from pathlib import Path

import pytest

from job.inputs.listed_files import ListedFiles
from job.inputs.manifest import freeze
from job.storage.location import Location
from job.storage.opening import locate
from tests.conftest import S3
from tests.runs import frozen_in
from tests.unit.test_manifest import numbered, touch


@pytest.mark.parametrize("name", ["[2024] trip", "a*", "what?", "x[1]/y[2]"])
@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_a_folder_that_looks_like_a_glob_is_a_folder_and_its_files_are_sifted_by_name(
    kind: str, name: str, tmp_path: Path, output: Location, memory: str, s3: S3
) -> None:
    root = {"local": str(tmp_path), "memory": memory, "s3": "s3://bucket/looks"}[kind]
    for file in ("b.jpg", "notes.txt", "sub[3]/c.png", "Thumbs.db", "._b.jpg"):
        (locate(root) / name / file).write_bytes(b"x")
    images = frozen_in(ListedFiles(f"{root}/{name}"), output)
    assert set(numbered(images)) == {"b.jpg", "c.png"}
    assert str(images.left_out) == (
        "1 object without an image's name (notes.txt), 2 files of operating systems"
        " (such as ._b.jpg)"
    ) or "such as Thumbs.db" in str(images.left_out)
    for uri in images.rows["uri"].to_pylist():
        assert locate(uri).read_bytes() == b"x"
    assert set(numbered(freeze(ListedFiles(f"{root}/{name}/*.txt"), ()))) >= {"notes.txt"}


def test_a_manifest_on_s3_names_objects_by_their_uri(s3: S3, tmp_path: Path) -> None:
    source = s3.upload(touch(tmp_path / "in", "a.jpg", "b.png", "c.txt"), "manifest-in")
    place = locate("s3://bucket/manifest-out")
    images = frozen_in(ListedFiles(source), place)
    assert images.rows["uri"].to_pylist() == [f"{source}/a.jpg", f"{source}/b.png"]
    assert images.left_out.total == 1
    assert len(frozen_in(ListedFiles(source), place).new) == 0
