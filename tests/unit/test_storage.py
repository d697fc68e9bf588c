"""Storage: URIs to filesystems, reads, atomic writes, on a disk, in memory and on S3."""

import errno
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest
from fsspec.implementations.ftp import FTPFileSystem
from fsspec.implementations.github import GithubFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from job.errors import ChangedError, ConfigError, StorageError
from job.inputs.listing import list_objects
from job.storage.archives import ArchiveLocation
from job.storage.fsspec_location import FsspecLocation
from job.storage.local import LocalLocation
from job.storage.location import Location
from job.storage.objects import StoredObject
from job.storage.opening import locate
from job.storage.refusals import explain
from job.storage.s3 import S3Location
from job.storage.web import WebLocation
from tests import hosted as hosted  # registers hosted://, contained:// and repository://


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def names(uri: object, **options: object) -> list[str]:
    return [os.path.basename(found.path) for found in list_objects(locate(str(uri), options))]


def test_a_local_path_is_absolute_and_its_uri_is_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("in", "./in", "in/", f"{tmp_path}/in//", f"file://{tmp_path}/in"):
        place = locate(uri)
        assert place.is_local
        assert place.path == place.uri == str(tmp_path / "in")
    assert locate("/").path == "/"


def test_two_colons_in_a_local_path_are_no_chain_of_filesystems(tmp_path: Path) -> None:
    fill(tmp_path / "a::b", "c::d.jpg")
    assert locate(f"{tmp_path}/a::b").path == str(tmp_path / "a::b")
    assert names(tmp_path / "a::b") == ["c::d.jpg"]


def test_other_schemes_are_what_fsspec_makes_of_them(memory: str) -> None:
    place = locate(f"{memory}/in/")
    assert not place.is_local
    assert (place.path, place.uri) == ("/place/in", "memory:///place/in")
    assert locate(place.uri).path == place.path


def test_an_unknown_scheme_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"nope://x.*s3://.*fsspec knows"):
        locate("nope://x")


def test_a_scheme_whose_package_is_missing_says_so() -> None:
    with pytest.raises(ConfigError, match=r"dropbox://.* needs a package that is not installed"):
        locate("dropbox://folder")


def test_options_that_the_filesystem_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit github://"):
        locate("github://x", {"nope": 1})


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("hosted://one/in", "hosted://one/in/a.jpg"),
        ("hosted://one", "hosted://one/a.jpg"),
        ("hosted://one:99/in/", "hosted://one:99/in/a.jpg"),
        ("hosted://me:pa@ss@one/in", "hosted://me@one/in/a.jpg"),
        ("hosted:///in", "hosted:///in/a.jpg"),
        ("contained://box@one/in", "contained://box@one/in/a.jpg"),
        ("contained://box@box/", "contained://box@box/a.jpg"),
        ("contained://box/in", "contained://box/in/a.jpg"),
        ("repository://in", "repository://in/a.jpg"),
        ("repository://one:in", "repository://one:in/a.jpg"),
        ("memory://in", "memory:///in/a.jpg"),
        ("http://me:word@host/in", "http://me:word@host/in/a.jpg"),
        ("simplecache::memory://in", "memory:///in/a.jpg"),
        ("filecache::http://host/in", "http://host/in/a.jpg"),
        ("simplecache::hosted://one/in", "hosted://one/in/a.jpg"),
        ("hf://datasets/a/b@main/in", "hf://datasets/a/b@main/in/a.jpg"),
    ],
)
def test_a_uri_has_the_host_that_the_filesystem_would_leave_out(uri: str, named: str) -> None:
    place = locate(uri)
    assert (place / "a.jpg").uri == named
    assert place.holds(named)
    if "ss@" not in uri:
        assert (locate(place.uri) / "a.jpg").uri == named


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("ftp://host:21/in", "ftp://host:21/in/a.jpg"),
        ("webhdfs://node:9870/in", "webhdfs://node:9870/in/a.jpg"),
        ("github://org:repo@main/in", "github://org:repo@main/in/a.jpg"),
        ("github://org:repo@main", "github://org:repo@main/a.jpg"),
    ],
)
def test_so_it_is_with_those_of_fsspec(
    uri: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FTPFileSystem, "_connect", lambda self: None)
    monkeypatch.setattr(FTPFileSystem, "__del__", lambda self: None)
    monkeypatch.setattr(GithubFileSystem, "ls", lambda self, path: [])
    assert (locate(uri) / "a.jpg").uri == named


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("repository:///far/one:in", {}),
        ("hosted://one/in?version=2", {}),
        ("hosted://one/a::b", {}),
        ("dir::memory://in", {}),
        ("https://[::1]:8000/in/", {}),
        ("http://host/a::b/", {}),
        ("zip://in", {"fo": "a.zip", "target_protocol": "file"}),
        ("hosted://one/q?", {}),
        ("hosted://one/a#", {}),
        ("contained://box@one/a?b=c", {}),
    ],
)
def test_a_place_that_uris_cannot_name_is_refused(
    uri: str, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("in/a.jpg", b"x")
    with pytest.raises(StorageError, match="the URIs of files there would not say") as refused:
        locate(uri, options)
    assert (":: in them divides" in str(refused.value)) == ("::" in uri)


@pytest.mark.parametrize("copies", ["", "simplecache::", "filecache::", "simplecache://::"])
def test_copies_of_an_archive_are_no_part_of_its_files_names(copies: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.jpg", b"an image")
    place = locate(f"{copies}zip://in::{tmp_path}/a.zip")
    (found,) = list_objects(locate(f"{copies}zip://in::{tmp_path}/a.zip"))
    uri = place.at(found.path).uri
    assert uri == f"zip://in/a.jpg::{tmp_path}/a.zip"
    assert place.holds(uri)
    assert not place.holds(uri.replace("a.zip", "b.zip"))
    assert place.fetch(uri, None, None) == b"an image"


def listed(uri: str) -> StoredObject:
    (found,) = list_objects(locate(uri))
    return found


def test_a_file_is_fetched_as_long_as_it_is_the_one_that_was_listed(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one")
    found, place = listed(str(tmp_path)), locate(str(tmp_path))
    assert place.fetch(found.path, found.etag, found.size) == b"one"
    file.write_bytes(b"one more")
    with pytest.raises(ChangedError, match=r"a\.jpg"):
        place.fetch(found.path, found.etag, found.size)
    assert place.fetch(found.path, None, None) == b"one more"
    found = listed(str(tmp_path))
    os.utime(file, (1, 1))
    with pytest.raises(ChangedError):
        place.fetch(found.path, found.etag, found.size)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        place.fetch(found.path, found.etag, found.size)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    size = 100 * 2**20
    file.write_bytes(bytes(size))
    found = listed(str(tmp_path))
    stop = threading.Event()

    def change() -> None:
        with open(file, "r+b") as opened:
            while not stop.wait(0.001):
                opened.seek(size - 1)
                opened.write(b"x")
                opened.flush()

    writer = threading.Thread(target=change)
    writer.start()
    try:
        with pytest.raises(ChangedError):
            locate(str(tmp_path)).fetch(found.path, found.etag, found.size)
    finally:
        stop.set()
        writer.join()


def test_where_tags_cannot_be_compared_the_size_can(memory: str) -> None:
    file = locate(memory) / "a.jpg"
    file.write_bytes(b"one")
    found, place = listed(memory), locate(memory)
    assert place.fetch(found.path, found.etag, found.size) == b"one"
    assert place.fetch(file.uri, None, None) == b"one"
    file.write_bytes(b"one more")
    with pytest.raises(ChangedError):
        place.fetch(found.path, found.etag, found.size)


def test_a_write_brings_its_folders_along_and_replaces_what_was_there(tmp_path: Path) -> None:
    file = locate(str(tmp_path)) / "deep" / "er" / "file"
    file.write_bytes(b"one")
    file.write_bytes(b"two!")
    assert file.read_bytes() == b"two!"
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_content_and_no_partial_file(tmp_path: Path) -> None:
    file = locate(str(tmp_path)) / "file"
    file.write_bytes(b"old")
    with pytest.raises(TypeError):
        file.write_bytes("text is no bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        (locate(str(tmp_path)) / "folder").write_bytes(b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_readers_see_a_whole_file_whenever_they_look(tmp_path: Path) -> None:
    file = locate(str(tmp_path)) / "file"
    contents = [bytes([byte]) * 300_000 for byte in b"ab"]
    file.write_bytes(contents[0])
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            file.write_bytes(contents[turn % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {file.read_bytes() for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(contents)
    assert len(seen) == 2


# Names that look like patterns, escapes, queries or variables, each with names that it would match.
STRANGE = {
    "a*b": ["axb", "ab"],
    "**": ["x", "*"],
    "x[1]": ["x1"],
    "[!x]": ["y"],
    "q?": ["qq", "q"],
    "{a,b}": ["a", "b"],
    "%2A": ["*", "%252A"],
    "a#b": ["a"],
    "two  words": ["two words", "two%20%20words"],
    "a+b;c=d&e": ["a b", "a"],
    "$HOME": [os.path.basename(os.path.expanduser("~"))],
    "~": [os.path.basename(os.path.expanduser("~"))],
    "ä🎈": ["a"],
}


def take_literally(root: Location, name: str) -> None:
    """Do with a strange name all that can be done, beside what it would match as a pattern."""
    others = [root / other / f"{more}.bin" for other in STRANGE[name] for more in STRANGE[name]]
    others += [root / name / "maps" / f"{other}.bin" for other in STRANGE[name]]
    for other in others:
        other.write_bytes(b"another")
    maps = root / name / "maps"
    beside = {file.name: 7 for file in others if file.path.startswith(f"{maps.path}/")}
    file, moved = maps / f"{name}.bin", root / name / "moved" / name
    assert not file.exists()
    assert file.size() is None
    assert maps.entries() == dict(sorted(beside.items()))
    file.delete()
    with pytest.raises(FileNotFoundError):
        file.move_to(moved)
    with pytest.raises(FileNotFoundError):
        file.read_bytes()

    file.write_bytes(b"its own")
    assert file.exists()
    assert file.size() == 7
    assert file.fetch(file.uri, None, None) == b"its own"
    assert maps.entries() == dict(sorted({**beside, file.name: 7}.items()))
    assert (maps.obstacle(), file.obstacle() != "") == ("", True)
    assert file.path in [found.path for found in list_objects(maps)]
    assert [found.path for found in list_objects(file)] == [file.path]

    file.move_to(moved)
    assert (file.size(), moved.read_bytes()) == (None, b"its own")
    file.arrow.move(moved.path, file.path)
    with file.arrow.open_input_file(file.path) as source:
        assert source.read() == b"its own"
    file.arrow.copy_file(file.path, moved.path)
    file.arrow.delete_file(file.path)
    assert ((root / name / "moved").names(), file.exists()) == ([name], False)
    moved.delete()
    assert not moved.exists()
    assert {other.read_bytes() for other in others} == {b"another"}


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("kind", ["local", "memory", "hosted"])
def test_a_path_is_taken_literally(kind: str, name: str, tmp_path: Path, memory: str) -> None:
    uri = {"local": str(tmp_path), "memory": memory, "hosted": f"hosted://{tmp_path.name}"}[kind]
    take_literally(locate(uri), name)
    if kind != "hosted":
        assert (locate(f"{uri}/{name}").path, locate(f"{uri}/{name}").uri) == (
            (locate(uri) / name).path,
            (locate(uri) / name).uri,
        )


def test_entries_are_the_files_directly_under_a_place_and_their_sizes(
    tmp_path: Path, memory: str
) -> None:
    for place in (locate(str(tmp_path)), locate(memory)):
        for name, size in {"b": 1, "a": 20_000, "sub/c": 3, "empty": 0}.items():
            (place / name).write_bytes(bytes(size))
        assert list(place.entries().items()) == [("a", 20_000), ("b", 1), ("empty", 0)]
        assert place.names() == ["a", "b", "empty"]
        for nothing in (place / "nowhere", place / "b", place / "b" / "below"):
            assert (nothing.entries(), nothing.names()) == ({}, [])


def test_a_link_to_a_file_is_a_file_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    place = locate(str(tmp_path))
    (place / "file").write_bytes(b"four")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert place.entries() == {"file": 4, "link": 4}
    assert place.names() == ["file", "link"]
    for name in ("dangling", "loop", "x" * 300):
        assert (place / name).size() is None
        assert not (place / name).exists()
    for name in ("folder", "pipe"):
        assert (place / name).size() is None
        assert (place / name).exists()


def test_a_link_that_leads_nowhere_is_no_pattern_either(tmp_path: Path) -> None:
    place = locate(f"{tmp_path}/a*")
    assert place.would_list(locate(f"{tmp_path}/ab"))
    (tmp_path / "a*").symlink_to("nowhere")
    assert not place.would_list(locate(f"{tmp_path}/ab"))


def test_what_cannot_be_looked_at_is_not_called_missing(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "the mount is gone")

    monkeypatch.setattr(MemoryFileSystem, "info", failing)
    monkeypatch.setattr(MemoryFileSystem, "ls", failing)
    places = [locate(memory) / "x", locate(str(tmp_path)) / "x"]
    for name in ("stat", "scandir"):
        monkeypatch.setattr(os, name, failing)
    for place in places:
        for ask in (place.exists, place.size, place.entries, place.names):
            with pytest.raises(OSError, match="the mount is gone"):
                ask()
    with pytest.raises(OSError, match="the mount is gone"):
        places[0].arrow.open_input_file(places[0].path)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_move_goes_over_what_is_there_and_brings_folders_along(
    kind: str, tmp_path: Path, memory: str
) -> None:
    place = locate({"local": str(tmp_path), "memory": memory}[kind])
    source, target = place / "attempts" / "a", place / "maps" / "deep" / "a"
    source.write_bytes(b"one")
    source.move_to(target)
    assert (source.exists(), target.read_bytes()) == (False, b"one")
    source.write_bytes(b"two!")
    source.move_to(target)
    assert (source.exists(), target.read_bytes()) == (False, b"two!")
    assert (place / "maps" / "deep").entries() == {"a": 4}
    target.move_to(target)
    assert target.read_bytes() == b"two!"


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_nothing_cannot_be_moved(kind: str, tmp_path: Path, memory: str) -> None:
    place = locate({"local": str(tmp_path), "memory": memory}[kind])
    (place / "folder" / "file").write_bytes(b"x")
    (place / "target").write_bytes(b"old")
    for missing in (place / "nothing", place / "nowhere" / "nothing"):
        for target in (place / "target", missing, place / "new" / "target"):
            with pytest.raises(FileNotFoundError):
                missing.move_to(target)
    with pytest.raises((FileNotFoundError, IsADirectoryError)):
        (place / "folder").move_to(place / "target")
    assert (place / "target").read_bytes() == b"old"
    assert not (place / "new").exists()


def test_what_vanishes_while_it_is_moved_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, target = locate(str(tmp_path)) / "file", locate(str(tmp_path)) / "target"
    file.write_bytes(b"x")
    replace = os.replace

    def late(*paths: str) -> None:
        os.unlink(file.path)
        replace(*paths)

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(FileNotFoundError):
        file.move_to(target)
    assert not target.exists()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_a_folder_that_is_a_link_to_another_disk_takes_a_move(tmp_path: Path) -> None:
    place = locate(str(tmp_path))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "maps").symlink_to(elsewhere)
        (place / "a").write_bytes(b"x")
        (place / "a").move_to(place / "maps" / "a")
        assert (place / "maps").entries() == {"a": 1}
        assert place.names() == []


def test_a_copy_that_is_not_whole_yet_is_no_move(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = locate(memory) / "file"
    file.write_bytes(b"whole")
    monkeypatch.setattr(
        MemoryFileSystem, "cp_file", lambda self, source, target: self.pipe_file(target, b"wh")
    )
    with pytest.raises(OSError, match="2 bytes of 5 are copied"):
        file.move_to(locate(memory) / "target")
    assert file.read_bytes() == b"whole"


def test_only_the_kind_of_storage_that_is_named_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from job.storage.opening import locate;"
        f"locate({str(tmp_path)!r}); print('s3fs' in sys.modules, end=' ');"
        "locate('s3://bucket'); print('s3fs' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("in", LocalLocation),
        ("file:///in", LocalLocation),
        ("local:///in", LocalLocation),
        ("s3a://bucket/in", S3Location),
        ("https://host/in/", WebLocation),
        ("dir://in::memory://", ArchiveLocation),
        ("simplecache::http://host/in", FsspecLocation),
        ("memory://in", FsspecLocation),
    ],
)
def test_each_kind_of_storage_is_a_class(uri: str, kind: type[Location]) -> None:
    assert type(locate(uri)) is kind
    assert type(locate(uri) / "a.jpg") is kind


def test_arrow_sees_the_same_files(tmp_path: Path, memory: str) -> None:
    for uri in (str(tmp_path), memory):
        place = locate(uri) / "x"
        place.write_bytes(b"bytes")
        with place.arrow.open_input_stream(place.path) as stream:
            assert stream.read() == b"bytes"


def test_storage_errors_are_explained_in_one_line() -> None:
    class NoCredentialsError(Exception):
        pass

    class EndpointConnectionError(Exception):
        pass

    assert "Check the credentials" in explain(PermissionError("Forbidden"))
    assert explain(FileNotFoundError("bucket/x")) == "not found (bucket/x)"
    assert "AWS_ACCESS_KEY_ID" in explain(NoCredentialsError())
    assert "AWS_ENDPOINT_URL" in explain(EndpointConnectionError("http://nowhere"))
    assert explain(OSError("first\n   second")) == "OSError: first second"
    assert explain(OSError()) == "OSError: OSError"


@pytest.mark.parametrize(
    "error", [PermissionError("Denied"), OSError(5, "Denied"), TimeoutError("Denied")], ids=repr
)
def test_what_ray_adds_to_an_error_is_left_out(error: OSError) -> None:
    from ray.data._internal.util import _annotate_exception_with_retry_context

    alone = explain(error)
    annotated = _annotate_exception_with_retry_context(
        error,
        description="apply Write",
        attempts=1,
        max_attempts=1,
        total_backoff_s=0.0,
        exception_str="",
    )
    travelled = pickle.loads(pickle.dumps(annotated))
    assert "transient" in str(travelled)
    assert explain(travelled) == alone
