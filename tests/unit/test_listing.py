"""Listing: folders, globs and single objects, on a disk, in memory and on S3."""

import os
import re
import tracemalloc
from pathlib import Path

import pytest

from job.errors import ConfigError, StorageError
from job.inputs.left_out import LeftOut
from job.inputs.listed_files import ListedFiles
from job.inputs.listing import list_objects
from job.prepare import refuse_overlap
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://

STRANGE = ["a b.jpg", "c#d.jpg", "e%20f.jpg", "g?h.jpg", "[i].jpg", "j\nk.jpg", "ü🎈.jpg", "l*.jpg"]


def names(uri: object, **options: object) -> list[str]:
    return [os.path.basename(found.path) for found in list_objects(locate(str(uri), options))]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_is_listed_with_what_is_nested_in_it_sorted(tmp_path: Path) -> None:
    fill(tmp_path, "b.jpg", "a/z.jpg", "a/deep/er/y.jpg", "c.txt")
    (tmp_path / "empty").mkdir()
    found = [item.path for item in list_objects(locate(str(tmp_path)))]
    expected = ["a/deep/er/y.jpg", "a/z.jpg", "b.jpg", "c.txt"]
    assert found == [str(tmp_path / name) for name in expected]
    assert [item.size for item in list_objects(locate(f"{tmp_path}/"))] == [
        len(n) for n in expected
    ]


def test_the_order_is_that_of_the_whole_paths(tmp_path: Path) -> None:
    fill(tmp_path, "a/x", "a/b/x", "a-b", "a-b-/x", "a.jpg", "a0", "a/x-", "ü/x", "🎈", "A", " ")
    found = [item.path for item in list_objects(locate(str(tmp_path)))]
    assert len(found) == 11
    assert found == sorted(found)


def test_links_are_followed_each_folder_once_and_loops_are_cut(tmp_path: Path) -> None:
    fill(tmp_path, "in/a.jpg", "in/sub/s.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "second").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "Sub").symlink_to("sub")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in" / "sub")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "itself.jpg").symlink_to(tmp_path / "in" / "itself.jpg")
    (tmp_path / "in" / "nowhere.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    (tmp_path / "way-in").symlink_to(tmp_path / "in")
    everything = ["a.jpg", "folder/b.jpg", "folder/deep/c.jpg", "link.jpg", "sub/s.jpg"]
    for way, expected in (
        ("in", everything),
        ("way-in", everything),
        ("in/**", everything),
        ("in/*", ["a.jpg", "link.jpg"]),
        ("in/*/*", ["folder/b.jpg", "sub/s.jpg"]),
    ):
        left_out = LeftOut()
        found = list(list_objects(locate(str(tmp_path / way)), left_out=left_out))
        root = tmp_path / way.partition("/")[0]
        assert [os.path.relpath(item.path, root) for item in found] == expected, way
        if "*/*" not in way:
            assert "2 links that lead nowhere (such as" in str(left_out), way
            assert "1 pipe, socket or device (pipe.jpg)" in str(left_out), way
    assert "links to folders that are listed anyway" in str(left_out)
    linked = next(found for found in list_objects(locate(str(tmp_path / "in/link.jpg"))))
    assert linked.size == len("elsewhere/b.jpg"), "of the file, not of the link"
    assert locate(str(tmp_path)).fetch(linked.path, linked.etag, None) == b"elsewhere/b.jpg"


def test_what_systems_leave_beside_images_is_left_out_and_counted(tmp_path: Path) -> None:
    left = [
        *("Thumbs.db", "thumbs.DB", ".DS_Store", "desktop.ini", "._a.jpg", "b/._c.jpg"),
        *("__MACOSX/a.jpg", "@eaDir/a.jpg/thumb.jpg", "$RECYCLE.BIN/a.jpg"),
    ]
    root = tmp_path / ".cache" / "in"
    fill(root, *left, "a.jpg", "b/c.jpg")
    for way in (root, f"{root}/**"):
        left_out = LeftOut()
        found = list_objects(locate(str(way)), left_out=left_out)
        assert [os.path.relpath(item.path, root) for item in found] == ["a.jpg", "b/c.jpg"]
        assert re.fullmatch(r"9 files of operating systems \(such as .*\)", str(left_out))
        assert left_out.total == 9
    assert names(root / "._a.jpg") == ["._a.jpg"], "asked for by its name"


def test_hidden_files_and_those_in_hidden_folders_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, ".a.jpg", ".cache/b.jpg", "c.jpg")
    assert names(tmp_path) == [".a.jpg", "b.jpg", "c.jpg"]


def test_a_large_folder_is_listed_without_a_record_of_each_file(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"x")
    for number in range(1, 20_000):
        os.link(tmp_path / "0", tmp_path / str(number))
    tracemalloc.start()
    try:
        assert sum(1 for _ in list_objects(locate(str(tmp_path)))) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000 * 400


def test_a_single_file_is_listed_alone(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "a.jpg.bak")
    assert names(tmp_path / "a.jpg") == ["a.jpg"]


def test_a_glob_takes_what_it_matches(tmp_path: Path) -> None:
    fill(tmp_path, "a1.jpg", "a2.png", "b1.jpg", "sub/a3.jpg", "a9.jpg/inside.txt")
    assert names(f"{tmp_path}/a*.jpg") == ["a1.jpg"]
    assert names(f"{tmp_path}/**/*.jpg") == ["a1.jpg", "b1.jpg", "a3.jpg"]
    assert names(f"{tmp_path}/a[12].*") == ["a1.jpg", "a2.png"]


def test_strange_names_are_listed_and_read_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path, *STRANGE)
    place = locate(str(tmp_path))
    found = {os.path.basename(item.path): item.path for item in list_objects(locate(str(tmp_path)))}
    assert set(found) == set(STRANGE)
    for name, path in found.items():
        assert place.at(path).read_bytes() == name.encode()


@pytest.mark.parametrize("name", STRANGE)
def test_a_single_file_of_a_strange_name_is_itself_and_no_pattern(
    tmp_path: Path, name: str
) -> None:
    fill(tmp_path, *STRANGE, "lx.jpg", "i.jpg", "gxh.jpg")
    assert names(tmp_path / name) == [name]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    fill(tmp_path, "[2024] trip*/a.jpg", "2 trip/b.jpg")
    assert names(tmp_path / "[2024] trip*") == ["a.jpg"]


@pytest.mark.parametrize("what", ["nowhere", "empty", "*.jpg"])
def test_nothing_to_list_is_said_with_what_is_expected(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match=r"nothing is there.*a folder, a prefix, a glob"):
        names(tmp_path / what)


def test_memory_lists_folders_files_and_globs(memory: str) -> None:
    for name in ("a.jpg", "sub/b.jpg", "c.txt"):
        (locate(memory) / name).write_bytes(b"x")
    assert names(memory) == ["a.jpg", "c.txt", "b.jpg"]
    assert names(f"{memory}/sub/b.jpg") == ["b.jpg"]
    assert names(f"{memory}/*.jpg") == ["a.jpg"]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a", "a"),
        ("a", "a/"),
        ("a/", "a"),
        ("a", "a/b"),
        ("a/", "a/b/c/"),
        ("a", "a/../a/out"),
        ("link", "a/out"),
        ("a", "link/out"),
        (".", "anything"),
        ("/", "a"),
    ],
)
def test_an_output_inside_the_input_is_refused(tmp_path: Path, source: str, output: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    opened = ListedFiles(os.path.join(tmp_path, source))
    with pytest.raises(ConfigError, match=r"inside INPUT.*Put OUTPUT beside INPUT"):
        refuse_overlap(opened, locate(os.path.join(tmp_path, output)))


@pytest.mark.parametrize(
    ("source", "output"), [("a", "ab"), ("a/b", "a"), ("a", "b/a"), ("ab", "a"), ("a", "link")]
)
def test_an_output_beside_or_around_the_input_is_fine(
    tmp_path: Path, source: str, output: str
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    refuse_overlap(ListedFiles(str(tmp_path / source)), locate(str(tmp_path / output)))


@pytest.mark.parametrize("glob", ["**", "*/*", "o*/**"])
def test_an_output_that_a_glob_of_the_input_matches_is_refused(tmp_path: Path, glob: str) -> None:
    fill(tmp_path, "in/a.jpg")
    with pytest.raises(ConfigError, match="inside INPUT"):
        refuse_overlap(ListedFiles(f"{tmp_path}/in/{glob}"), locate(f"{tmp_path}/in/out"))


def test_the_same_path_on_another_storage_is_no_overlap(tmp_path: Path) -> None:
    refuse_overlap(ListedFiles(str(tmp_path)), locate(f"memory://{tmp_path}/out"))
    refuse_overlap(ListedFiles(f"memory://{tmp_path}/**"), locate(f"{tmp_path}/out"))
    refuse_overlap(ListedFiles("hosted://one/in"), locate("hosted://two/in/out"))
    with pytest.raises(ConfigError, match="inside INPUT hosted://one/in"):
        refuse_overlap(ListedFiles("hosted://one/in"), locate("hosted://one/in/out"))


def test_a_storage_that_does_not_answer_is_a_storage_error() -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:1",
        "key": "k",
        "secret": "s3cr3t",
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
    }
    with pytest.raises(StorageError, match="does not answer") as caught:
        names("s3://bucket/x", **options)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="needs a user who is not root: root may read everything"
)
@pytest.mark.parametrize("way", ["closed", "."])
def test_a_folder_that_may_not_be_listed_is_a_storage_error(tmp_path: Path, way: str) -> None:
    closed = fill(tmp_path / "closed", "a.jpg")
    fill(tmp_path, "b.jpg")
    closed.chmod(0)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            names(tmp_path / way)
    finally:
        closed.chmod(0o700)
