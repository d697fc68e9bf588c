"""Manifest: what is listed, in which order it is numbered, and that numbers never change."""

import io
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from job import schema
from job.errors import StorageError
from job.inputs.fetching import Fetcher
from job.inputs.left_out import LeftOut
from job.inputs.listed_files import ListedFiles
from job.inputs.manifest import Manifest, freeze
from job.inputs.manifest_source import ManifestSource
from job.outputs.commits import Commits
from job.rows import Listed
from job.storage.location import Location
from tests.runs import frozen_in
from tests.servers import serving, serving_folder


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 10)
    return folder


def numbered(images: Manifest) -> dict[str, int]:
    return {Path(row["uri"]).name: row["id"] for row in images.rows.to_pylist()}


def frozen(output: Location) -> pa.Table:
    place = output / "manifest"
    return pa.concat_tables(
        [pq.read_table(io.BytesIO((place / name).read_bytes())) for name in place.names()]
    )


def of_format_1(output: Location, images: Manifest) -> None:
    """Leave a manifest as format 1 did: without parts, and no record names its file."""
    folder = Path(output.path) / "manifest"
    folder.mkdir(parents=True)
    pq.write_table(images.rows.drop_columns("part"), folder / "part-000000000000.parquet")


def test_images_are_numbered_in_the_order_of_their_paths(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", "b.jpg", "a/z.PNG", "c.webp")
    images = frozen_in(ListedFiles(str(source)), output)
    assert numbered(images) == {"z.PNG": 0, "b.jpg": 1, "c.webp": 2}
    assert (images.images, len(images.new), images.size, images.left_out.total) == (3, 3, 30, 0)


def test_the_frozen_rows_say_where_how_large_and_which(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", "a.jpg", "b.jpg")
    frozen_in(ListedFiles(str(source)), output)
    rows = frozen(output)
    assert rows.schema.equals(schema.MANIFEST)
    assert rows["uri"].to_pylist() == [str(source / "a.jpg"), str(source / "b.jpg")]
    assert rows["size"].to_pylist() == [10, 10]
    assert all(rows["etag"].to_pylist())


def test_ids_are_the_same_when_it_is_listed_again(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", "a.jpg", "b.jpg")
    first = frozen_in(ListedFiles(str(source)), output)
    files = (output / "manifest").names()
    again = frozen_in(ListedFiles(str(source)), output)
    assert again.rows.equals(first.rows)
    assert (len(again.new), again.size) == (0, 20)
    assert (output / "manifest").names() == files


def test_images_that_come_later_get_the_next_ids(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", "b.jpg", "d.jpg")
    frozen_in(ListedFiles(str(source)), output)
    touch(source, "a.jpg", "c.jpg")
    (source / "b.jpg").unlink()
    images = frozen_in(ListedFiles(str(source)), output)
    assert numbered(images) == {"b.jpg": 0, "d.jpg": 1, "a.jpg": 2, "c.jpg": 3}
    assert (len(images.new), images.images) == (2, 4), "what is gone stays in the list"
    touch(source, "e.jpg")
    assert numbered(frozen_in(ListedFiles(str(source)), output))["e.jpg"] == 4
    assert sorted(frozen(output)["id"].to_pylist()) == [0, 1, 2, 3, 4]


def test_an_input_that_is_empty_by_now_is_fine_when_it_was_listed_before(
    tmp_path: Path, output: Location
) -> None:
    source = touch(tmp_path / "in", "a.jpg", "notes.txt")
    frozen_in(ListedFiles(str(source)), output)
    (source / "a.jpg").unlink()
    images = frozen_in(ListedFiles(str(source)), output)
    assert (images.images, len(images.new), images.left_out.total) == (1, 0, 1)


class Rows:
    """An input whose images are parts of objects: two rows of one, and an object that is whole."""

    name = uri = "shelf"

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def check(self) -> None:
        pass

    def would_list(self, file: Location) -> bool:
        return False

    def list(self, left_out: LeftOut) -> Iterator[Listed]:
        yield Listed("shelf/a", 5, "tag")
        for part in self._parts:
            yield Listed("shelf/a", None, None, part)

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        return f"{row.uri} {row.part}".encode()


def test_an_image_is_known_by_where_it_is_and_by_its_part(output: Location) -> None:
    frozen_in(Rows("7", "8"), output)
    images = frozen_in(Rows("8", "9", "7"), output)
    assert (len(images.new), images.size, images.unknown_sizes) == (1, 5, 3)
    assert frozen(output)["part"].to_pylist() == [None, "7", "8", "9"]
    assert images.witnesses[-1] == Listed("shelf/a", None, None, "7")
    again = images.as_listed_now(images.rows)
    assert again["part"].to_pylist() == [None, "7", "8", "9"]
    assert again["etag"].to_pylist() == ["tag", None, None, None]
    assert Fetcher(Rows()).fetch(images.witnesses[-1]) == b"shelf/a 7"


def test_a_manifest_from_before_there_were_parts_is_one_of_whole_objects(
    tmp_path: Path, output: Location
) -> None:
    source = touch(tmp_path / "in", "a.jpg", "b.jpg")
    of_format_1(output, freeze(ListedFiles(str(source)), ()))
    touch(source, "c.jpg")
    images = frozen_in(ListedFiles(str(source)), output)
    assert images.rows.schema.equals(schema.MANIFEST)
    assert (len(images.new), images.images) == (1, 3)
    assert images.rows["part"].to_pylist() == [None] * 3


def test_what_is_no_image_by_its_name_is_counted_and_left_out(
    tmp_path: Path, output: Location
) -> None:
    source = touch(tmp_path / "in", "a.jpg", "b.txt", "jpg", ".jpg.swp", "c.jpg.bak", "d.JPEG")
    images = frozen_in(ListedFiles(str(source)), output)
    assert set(numbered(images)) == {"a.jpg", "d.JPEG"}
    assert images.left_out.total == 4


def test_a_glob_or_a_single_object_is_taken_whatever_its_name(
    tmp_path: Path, output: Location
) -> None:
    source = touch(tmp_path / "in", "a", "b.bin")
    assert set(numbered(freeze(ListedFiles(f"{source}/*"), ()))) == {"a", "b.bin"}
    assert set(numbered(freeze(ListedFiles(f"{source}/b.bin"), ()))) == {"b.bin"}


def test_sizes_that_a_storage_does_not_tell_are_unknown_and_not_zero(
    tmp_path: Path, output: Location
) -> None:
    touch(tmp_path / "in", "a.jpg", "b c.png", "sub/d.webp", "e.txt")
    with serving_folder(tmp_path / "in") as address:
        images = frozen_in(ListedFiles(address), output)
    assert set(numbered(images)) == {"a.jpg", "b%20c.png", "d.webp"}
    assert images.rows["size"].to_pylist() == [None] * 3
    assert (images.size, images.unknown_sizes) == (None, 3)
    images = frozen_in(ListedFiles(str(tmp_path / "in")), output)
    assert images.images == 6, "known sizes go beside them"
    assert (images.size, images.unknown_sizes) == (30, 3)


def test_links_of_a_web_folder_are_images_by_the_names_in_them(output: Location) -> None:
    listing = """<a href="?C=N;O=D">Name</a> <a href="/">up</a> <a href="a.jpg">a</a>
        <a href="e.jpg?v=2">e</a> <a href="q%3Fr%2Ejpg">q</a> <a href="Thumbs.db?v=1">t</a>
        <a href="get.php?of=b.jpg&v=1">b</a> <a href="?of=sub/c.JPG">c</a> <a href="f?v=1.2">f</a>
        <a href="/i/?of=d.png">d</a> <a href="?of=notes">n</a> <a href="?of=._c.jpg">s</a>"""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(listing.encode())

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with serving(Server) as address:
        images = frozen_in(ListedFiles(f"{address}/i/"), output)
    names = [uri.removeprefix(f"{address}/i/") for uri in images.rows["uri"].to_pylist()]
    assert names == [
        *("?of=d.png", "?of=sub/c.JPG", "a.jpg", "e.jpg?v=2", "get.php?of=b.jpg&v=1"),
        "q%3Fr.jpg",
    ]
    assert str(images.left_out) == (
        "1 object without an image's name (f?v=1.2), 2 files of operating systems (such as ._c.jpg)"
    )


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_images_of_archives_are_named_with_their_archive(
    kind: str, tmp_path: Path, output: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = touch(tmp_path / "in", "a.jpg", "sub/b [1].jpg", "__MACOSX/a.jpg")
    for name in ("one", "two"):
        shutil.make_archive(name, kind, source)
    first = frozen_in(ListedFiles(f"{kind}://::one.{kind}"), output)
    # From another folder, and by its full name.
    second = frozen_in(ListedFiles(f"{kind}://::file://{tmp_path}/two.{kind}"), output)
    assert (first.images, len(second.new), second.images) == (2, 2, 4)
    assert "1 file of an operating system" in str(first.left_out)
    again = frozen_in(ListedFiles(f"{kind}://::{tmp_path}/one.{kind}"), output)
    assert (len(again.new), again.images) == (0, 4)
    uris = again.rows["uri"].to_pylist()
    assert uris[0].startswith(f"{kind}://")
    assert uris[0].endswith(f"a.jpg::{tmp_path}/one.{kind}")
    assert len(set(uris)) == 4
    monkeypatch.chdir("/")
    for uri in uris:
        file = fsspec.open(uri)
        with file as stream:
            assert stream.read() == b"x" * 10


def test_no_image_among_what_is_there_is_an_error_with_the_way_out(
    tmp_path: Path, output: Location
) -> None:
    source = touch(tmp_path / "in", "a.txt", "b.csv")
    with pytest.raises(StorageError, match=r"no image.*\.avif.*2 objects.*a\.txt.*Give a glob"):
        freeze(ListedFiles(str(source)), ())
    assert not output.exists()


def test_counting_writes_nothing(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", "a.jpg")
    files = Commits.read(output).manifest_files()
    assert len(freeze(ListedFiles(str(source)), files).new) == 1
    assert not output.exists()


def test_without_drops_what_is_done_and_keeps_the_order(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", *(f"{number}.jpg" for number in range(6)))
    images = frozen_in(ListedFiles(str(source)), output)
    left = images.without(np.array([0, 3, 5, 99], np.int64))
    assert left["id"].to_pylist() == [1, 2, 4]
    assert left.column_names == ["id", "uri", "size", "etag", "part"]
    assert images.without(np.empty(0, np.int64)).equals(images.rows)
    assert len(images.without(np.arange(6))) == 0


def test_strange_names_are_frozen_as_they_are(tmp_path: Path, output: Location) -> None:
    names = ["a b.jpg", "[i].jpg", "j\nk.jpg", "ü🎈.jpg", "e%20f.jpg", "g?h#i.jpg"]
    source = touch(tmp_path / "in", *names)
    assert set(numbered(frozen_in(ListedFiles(str(source)), output))) == set(names)
    assert len(frozen_in(ListedFiles(str(source)), output).new) == 0


def source_of(rows: int, images_per_task: int) -> ManifestSource:
    table = pa.table({"id": range(rows), "uri": [f"in/{row}.jpg" for row in range(rows)]})
    return ManifestSource(table, images_per_task)


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [(1, 8, [1]), (8, 8, [8]), (9, 8, [8, 1]), (5, 1, [1] * 5), (0, 4, [])],
)
def test_each_task_gets_a_few_images(rows: int, size: int, expected: list[int]) -> None:
    source = source_of(rows, size)
    tasks = source.get_read_tasks(200)
    assert source.tasks == len(tasks) == len(expected)
    blocks = [block for task in tasks for block in task()]
    assert [len(block) for block in blocks] == expected
    assert [number for block in blocks for number in block["id"].to_pylist()] == list(range(rows))


def test_a_task_carries_its_own_rows_only() -> None:
    (first, *_) = source_of(200_000, 8).get_read_tasks(1)
    assert len(ray.cloudpickle.dumps(first)) < 20_000


def test_other_tools_read_a_manifest_that_was_begun_before_there_were_parts(
    tmp_path: Path, output: Location
) -> None:
    source = touch(tmp_path / "in", "a.jpg")
    of_format_1(output, freeze(ListedFiles(str(source)), ()))
    touch(source, "b.jpg")
    frozen_in(ListedFiles(str(source)), output)
    pattern = f"{output.path}/manifest/*.parquet"
    assert duckdb.execute(f"select id, uri from '{pattern}' order by id").fetchall() == [
        (number, str(source / name)) for number, name in enumerate(("a.jpg", "b.jpg"))
    ]
