"""One image, one id: however INPUT is written, and by whatever links an image is reached."""

import os
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pyarrow as pa
import pytest

from job import schema
from job.errors import ConfigError, StorageError
from job.inputs.base import Input
from job.inputs.left_out import LeftOut
from job.inputs.listed_files import ListedFiles
from job.inputs.manifest import Manifest, freeze
from job.prepare import refuse_overlap
from job.rows import Listed
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate
from tests import hosted as hosted  # registers gs:// and hosted://
from tests.servers import serving
from tests.unit.test_manifest import Rows, touch


def uris(images: Manifest) -> list[str]:
    found: list[str] = images.rows["uri"].to_pylist()
    return found


def frozen_in(source: Input, output: Location) -> Manifest:
    """The manifest of an OUTPUT, once what is new is in it."""
    place = output / "manifest"
    images = freeze(source, [place / name for name in place.names()])
    for part in images.new_parts:
        name = f"part-{part['id'][0].as_py():012d}.parquet"
        (place / name).write_bytes(parquet.to_bytes(part))
    return images


def freeze_rows(output: Location, *rows: tuple[int, str]) -> None:
    """A manifest as an earlier version may have left it: of ids and URIs."""
    table = pa.table(
        {
            "id": [number for number, _ in rows],
            "uri": [uri for _, uri in rows],
            "size": [1] * len(rows),
            "etag": ["before"] * len(rows),
        },
        schema=pa.schema([field for field in schema.MANIFEST if field.name != "part"]),
    )
    (output / "manifest" / "part-000000000000.parquet").write_bytes(parquet.to_bytes(table))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``photos`` with two images in the current one, reached by links as well."""
    photos = touch(tmp_path / "photos", "a.jpg", "sub/b.jpg")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "way").symlink_to("photos")
    (tmp_path / "deep" / "way").symlink_to(tmp_path / "way")
    (tmp_path / "deep" / "home").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return photos


@pytest.mark.parametrize(
    "spelling",
    [
        *("photos", "photos/", "photos//", "./photos", "photos/.", "photos/./", ".//photos"),
        *("deep/../photos", "photos/sub/..", "photos/sub/../../photos", "{here}//photos/."),
        *("/{here}/photos", "file://{here}/photos", "file://{here}//photos/", "local://{here}/way"),
        *("way", "way/", "way/.", "deep/way", "deep/home/way", "way/sub/..", "deep/home/photos/."),
        *("deep/way/../photos", "photos/**", "way/**", "photos/./**", "deep/../way/**/*.jpg"),
        *("file://{here}/photos/**", "deep/home/photos/**/*.jpg", "w*/**", "**/*.jpg"),
    ],
)
def test_a_folder_lists_the_same_images_however_it_is_written(
    spelling: str, photos: Path, output: Location
) -> None:
    first = frozen_in(ListedFiles("photos"), output)
    assert uris(first) == [f"{photos}/a.jpg", f"{photos}/sub/b.jpg"]
    again = frozen_in(ListedFiles(spelling.format(here=os.getcwd())), output)
    assert (len(again.new), again.images, len(again.listed)) == (0, 2, 2)


@pytest.mark.parametrize("spelling", ["way/a.jpg", "./photos/./a.jpg", "deep/way/sub/../a.jpg"])
def test_a_single_image_is_the_one_of_its_folder(
    spelling: str, photos: Path, output: Location
) -> None:
    frozen_in(ListedFiles("photos"), output)
    again = frozen_in(ListedFiles(spelling), output)
    assert (len(again.new), again.listed["uri"].to_pylist()) == (0, [f"{photos}/a.jpg"])


def test_two_dots_behind_a_link_lead_where_the_system_goes(
    tmp_path: Path, output: Location
) -> None:
    touch(tmp_path, "far/in/a.jpg", "far/beside/b.jpg", "beside/c.jpg")
    (tmp_path / "link").symlink_to("far/in")
    images = frozen_in(ListedFiles(f"{tmp_path}/link/../beside"), output)
    assert uris(images) == [f"{tmp_path}/far/beside/b.jpg"]


def test_images_of_a_linked_folder_are_listed_where_they_lie(
    tmp_path: Path, output: Location
) -> None:
    touch(tmp_path / "in", "a.jpg")
    touch(tmp_path / "far", "b.jpg", "deep/c.jpg")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "far")
    images = frozen_in(ListedFiles(str(tmp_path / "in")), output)
    names = ["in/a.jpg", "far/b.jpg", "far/deep/c.jpg"]
    assert uris(images) == [f"{tmp_path}/{name}" for name in names]
    assert len(frozen_in(ListedFiles(str(tmp_path / "far")), output).new) == 0
    (tmp_path / "in" / "more").unlink()
    assert len(frozen_in(ListedFiles(str(tmp_path / "far")), output).new) == 0, (
        "also without the link"
    )
    place = ListedFiles(str(tmp_path / "in"))
    assert place.fetch(Listed(uris(images)[1], None, None)) == b"x" * 10


def test_a_linked_file_is_an_image_under_its_own_name(tmp_path: Path, output: Location) -> None:
    # As git-annex, DVC and the Hub's cache keep files: the names are those of links.
    store = touch(tmp_path / "store", "5f1d", "a2c4")
    snapshot = tmp_path / "cache" / "snapshot"
    snapshot.mkdir(parents=True)
    for name, blob in (("cat.jpg", "5f1d"), ("dog.jpg", "a2c4"), ("again.jpg", "5f1d")):
        (snapshot / name).symlink_to(store / blob)
    (tmp_path / "latest").symlink_to(snapshot)
    images = frozen_in(ListedFiles(str(tmp_path / "latest")), output)
    assert uris(images) == [f"{snapshot}/{name}" for name in ("again.jpg", "cat.jpg", "dog.jpg")]
    assert images.left_out.total == 0
    single = frozen_in(ListedFiles(str(tmp_path / "latest" / "cat.jpg")), output)
    assert (len(single.new), single.listed["uri"].to_pylist()) == (0, [f"{snapshot}/cat.jpg"])


def test_hard_links_are_images_of_their_own(tmp_path: Path, output: Location) -> None:
    source = touch(tmp_path / "in", "a.jpg")
    os.link(source / "a.jpg", source / "b.jpg")
    assert uris(frozen_in(ListedFiles(str(source)), output)) == [f"{source}/{n}.jpg" for n in "ab"]


def test_a_glob_lists_a_folder_once_that_it_reaches_by_two_names(
    tmp_path: Path, output: Location
) -> None:
    touch(tmp_path / "in", "b1/x.jpg", "c/y.jpg")
    (tmp_path / "in" / "b2").symlink_to("b1")
    images = frozen_in(ListedFiles(f"{tmp_path}/in/b*/*.jpg"), output)
    assert uris(images) == [f"{tmp_path}/in/b1/x.jpg"]
    # What else would list it has another name.
    (tmp_path / "in" / "b3").symlink_to("c")
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "in" / "deep" / "b").symlink_to("../c")
    images = frozen_in(ListedFiles(f"{tmp_path}/in/b*/*.jpg"), output)
    assert uris(images)[1:] == [f"{tmp_path}/in/c/y.jpg"], "the glob matches it by the link only"
    images = frozen_in(ListedFiles(f"{tmp_path}/in/**/b*/*.jpg"), output)
    assert (len(images.new), len(images.listed)) == (0, 2)


def test_a_link_that_leads_to_nothing_more_is_told(tmp_path: Path, output: Location) -> None:
    touch(tmp_path, "far/b.jpg", "in/a.jpg", "in/x/y/c.jpg")
    (tmp_path / "in" / "one").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "x" / "two").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "x" / "z").symlink_to("y")
    images = frozen_in(ListedFiles(f"{tmp_path}/in/*/*/*.jpg"), output)
    assert uris(images) == [f"{tmp_path}/far/b.jpg", f"{tmp_path}/in/x/y/c.jpg"]
    assert str(images.left_out) == "1 link to a folder that is listed anyway (z)"


class Pages(BaseHTTPRequestHandler):
    """A web folder ``i`` whose page links the same images in several ways."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        host = self.headers["Host"]
        links = ("a.jpg", "./a.jpg", "a%2Ejpg", "b%20c.jpg", "b c.jpg", "sub/../a.jpg", "a.jpg#top")
        page = [
            f'<a href="{link}">x</a>' for link in (*links, "/i/a.jpg", f"http://{host}/i/d.jpg")
        ]
        self.wfile.write("".join(page).encode() if self.path in ("/i/", "/i") else b"image")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_an_image_that_a_web_page_links_in_several_ways_is_one(output: Location) -> None:
    with serving(Pages) as address:
        source = ListedFiles(f"{address}/i/")
        images = frozen_in(source, output)
        assert uris(images) == [f"{address}/i/{name}" for name in ("a.jpg", "b%20c.jpg", "d.jpg")]
        assert str(images.left_out).startswith("3 images that are listed again under another name")
        assert {source.fetch(row) for row in images.witnesses} == {b"image"}
        for spelling in (f"{address}/i", f"{address}/./i/", f"{address}/x/../%69/"):
            assert len(frozen_in(ListedFiles(spelling), output).new) == 0, spelling
        loud = address.replace("127.0.0.1", "LOCALHOST")
        first = frozen_in(ListedFiles(f"{loud}/i/"), output)
        assert len(first.new) == 3, "whether two hosts are one is not known"
        quiet = frozen_in(ListedFiles(f"{loud.lower()}/i/"), output)
        assert (len(quiet.new), len(quiet.listed)) == (0, 3)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_one_however_it_is_written(
    kind: str, photos: Path, output: Location, tmp_path: Path
) -> None:
    shutil.make_archive("one", kind, photos)
    (tmp_path / "deep" / "archives").symlink_to(tmp_path)
    first = frozen_in(ListedFiles(f"{kind}://::{tmp_path}/one.{kind}"), output)
    assert first.images == 2
    for archive in (
        *(f"one.{kind}", f"./one.{kind}", f"deep/../one.{kind}", f"deep/archives/one.{kind}"),
        *(f"file://{tmp_path}/one.{kind}", f"{tmp_path}//one.{kind}"),
        f"simplecache::file://{tmp_path}/one.{kind}",
    ):
        again = frozen_in(ListedFiles(f"{kind}://::{archive}"), output)
        assert len(again.new) == 0, archive
        assert ListedFiles(f"{kind}://::{archive}").fetch(again.witnesses[0])
    single = frozen_in(ListedFiles(f"{uris(first)[0].partition('::')[0]}::./one.{kind}"), output)
    assert (len(single.new), single.listed["uri"].to_pylist()) == (0, uris(first)[:1])


def test_two_schemes_of_one_storage_are_one(output: Location) -> None:
    (locate("gs://bucket/a.jpg")).write_bytes(b"x")
    first = frozen_in(ListedFiles("gcs://bucket"), output)
    assert uris(first) == ["gs://bucket/a.jpg"]
    again = frozen_in(ListedFiles("gs://bucket/*.jpg"), output)
    assert (len(again.new), len(again.listed)) == (0, 1)


def test_a_manifest_of_an_earlier_spelling_is_gone_on_with(photos: Path, output: Location) -> None:
    here = photos.parent
    rows = (
        (0, f"{here}/way/./a.jpg"),
        (1, f"{here}/deep/../photos/sub//b.jpg"),
        (2, f"{here}/gone/../way/c.jpg"),
    )
    freeze_rows(output, *rows)
    before = (output / "manifest").names()
    images = frozen_in(ListedFiles("photos"), output)
    assert (len(images.new), images.images) == (0, 3)
    assert (output / "manifest").names() == before
    touch(photos, "c.jpg", "d.jpg")
    images = frozen_in(ListedFiles("way"), output)
    assert (len(images.new), uris(images)[3:]) == (1, [f"{photos}/d.jpg"])
    assert uris(images)[:3] == [uri for _, uri in rows], "rows never change"
    # What is tried again is compared with what lies there now.
    now = images.as_listed_now(images.rows)
    assert now["size"].to_pylist() == [10] * 4
    assert now["uri"].to_pylist() == uris(images)


def test_an_image_that_has_two_ids_already_keeps_them(photos: Path, output: Location) -> None:
    freeze_rows(output, (0, f"{photos}/a.jpg"), (1, f"{photos.parent}/way/a.jpg"))
    images = frozen_in(ListedFiles("photos"), output)
    assert uris(images)[2:] == [f"{photos}/sub/b.jpg"]
    assert images.as_listed_now(images.rows)["size"].to_pylist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("before", "spelling"),
    [
        ("s3a://bucket/x/a.jpg", "s3://bucket/x/a.jpg"),
        ("s3:///bucket/x/a.jpg", "s3://bucket/x/a.jpg"),
        ("gcs://bucket/a.jpg", "gs://bucket/a.jpg"),
        ("az://box/a.jpg", "abfs://box/a.jpg"),
        ("abfss://box@one.dfs.core.windows.net/a.jpg", "abfs://box@one.dfs.core.windows.net/a.jpg"),
        ("http://HOST:80/i/a.jpg", "http://host/i/a.jpg"),
        ("https://Host:443/i/./b%20%7e.jpg?V=2#x", "https://host/i/b%20~.jpg?V=2"),
        ("sftp://Host/i/a.jpg", "ssh://host/i/a.jpg"),
        ("zip://a.jpg::s3a://bucket/a.zip", "zip://a.jpg::s3://bucket/a.zip"),
        ("zip://a.jpg::http://HOST/a.zip", "zip://a.jpg::http://host:80/a.zip"),
        ("zip://a.jpg::simplecache::s3://bucket/a.zip", "zip://a.jpg::s3://bucket/a.zip"),
    ],
)
def test_uris_of_every_storage_are_compared_by_where_they_lead(
    before: str, spelling: str, output: Location
) -> None:
    freeze_rows(output, (0, before))
    images = frozen_in(Named(spelling), output)
    assert (len(images.new), uris(images)) == (0, [before])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/a//b.jpg", "s3://bucket/a/b.jpg"),
        ("s3://bucket/a/./b.jpg", "s3://bucket/a/b.jpg"),
        ("s3://bucket//b.jpg", "s3://bucket/b.jpg"),
        ("s3://Bucket/b.jpg", "s3://bucket/b.jpg"),
        ("gs://bucket/a/../b.jpg", "gs://bucket/b.jpg"),
        ("http://host/a.jpg", "https://host/a.jpg"),
        ("http://host/a.jpg", "http://host:443/a.jpg"),
        ("http://host/a%2Fb.jpg", "http://host/a/b.jpg"),
        ("http://host/a//b.jpg", "http://host/a/b.jpg"),
        ("http://host/A.jpg", "http://host/a.jpg"),
        ("http://host/a.jpg?v=1", "http://host/a.jpg?v=2"),
        ("zip://a.jpg::s3://bucket/a.zip", "zip://a.jpg::s3://bucket/b.zip"),
        ("hosted://One/a.jpg", "hosted://one/a.jpg"),
        ("/in/A.jpg", "/in/a.jpg"),
    ],
)
def test_what_may_be_two_images_stays_two(one: str, other: str, output: Location) -> None:
    freeze_rows(output, (0, one))
    assert len(frozen_in(Named(other, one), output).new) == 1


class Named:
    """An input that lists what it is told to."""

    name = uri = "told"

    def __init__(self, *uris: str) -> None:
        self._uris = uris

    def check(self) -> None:
        pass

    def would_list(self, file: Location) -> bool:
        return False

    def list(self, left_out: LeftOut) -> Iterator[Listed]:
        for uri in self._uris:
            yield Listed(uri, 1, None)

    def fetch(self, row: Listed, limit: int | None = None) -> bytes:
        raise NotImplementedError


def test_what_is_listed_twice_is_one_row(output: Location) -> None:
    images = frozen_in(Named("s3://bucket/b.jpg", "s3://bucket/a.jpg", "s3://bucket/b.jpg"), output)
    assert uris(images) == ["s3://bucket/b.jpg", "s3://bucket/a.jpg"]
    assert images.left_out.total == 0
    assert len(frozen_in(Rows("7", "8", "7"), output).new) == 3


def test_the_next_id_is_one_above_the_highest(output: Location) -> None:
    freeze_rows(
        output, (0, "s3://bucket/a.jpg"), (7, "s3://bucket/b.jpg"), (3, "s3://bucket/c.jpg")
    )
    images = frozen_in(Named("s3://bucket/d.jpg", "s3://bucket/c.jpg", "s3://bucket/e.jpg"), output)
    assert images.rows["id"].to_pylist() == [0, 7, 3, 8, 9]
    assert (len(images.new), images.images) == (2, 5)
    later = frozen_in(Named("s3://bucket/f.jpg"), output)
    assert later.rows["id"].to_pylist() == [0, 7, 3, 8, 9, 10]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (((0, "s3://b/a.jpg"), (1, "s3://b/a.jpg")), r"s3://b/a\.jpg is both image 0 and image 1"),
        (
            ((4, "s3://b/a.jpg"), (4, "s3://b/c.jpg")),
            r"image 4 is both s3://b/a\.jpg and s3://b/c\.jpg",
        ),
        (((2, "s3://b/a.jpg"), (2, "s3://b/a.jpg")), r"s3://b/a\.jpg is listed twice as image 2"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    rows: tuple[tuple[int, str], ...], words: str, output: Location
) -> None:
    freeze_rows(output, *rows)
    told = f"the manifest in {output.uri}/manifest contradicts itself: {words}"
    with pytest.raises(StorageError, match=rf"^{told}\..*python -m job verify.*another OUTPUT$"):
        frozen_in(Named("s3://b/z.jpg"), output)
    freeze_rows(output, *rows, (9, rows[0][1]), (9, "s3://b/y.jpg"))
    with pytest.raises(StorageError, match="and 2 more"):
        frozen_in(Named("s3://b/z.jpg"), output)


def test_an_output_that_a_glob_of_the_input_reaches_by_a_link_is_refused(photos: Path) -> None:
    for source in ("photos/**", "way/**", "deep/home/photos/**"):
        for output in ("photos/out", "way/out", "deep/way/out"):
            with pytest.raises(ConfigError, match="inside INPUT"):
                refuse_overlap(ListedFiles(source), locate(output))
