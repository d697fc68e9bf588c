"""Storage: URIs to filesystems, reads, atomic writes, on a disk, in memory and on S3."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from job.errors import JobError
from job.inputs.listing import list_objects
from job.limits import RetryPolicy
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://, contained:// and repository://
from tests.conftest import S3
from tests.faults import FaultyProxy, Refusal, Request
from tests.unit.test_storage import STRANGE, names, take_literally


def test_s3_places_keep_their_bucket(s3: S3) -> None:
    place = locate("s3://bucket/a/b/")
    assert (place.path, place.uri) == ("bucket/a/b", "s3://bucket/a/b")
    assert (place / "c").uri == "s3://bucket/a/b/c"


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": 1},
        {"client_kwargs": {"nope": 1}},
        {"client_kwargs": 5},
        {"config_kwargs": {"nope": 1}},
        {"endpoint_url": "not a url"},
        {"profile": "nobody"},
        {"key": "only half of a pair"},
    ],
    ids=str,
)
def test_options_that_s3_does_not_take_end_in_a_sentence(
    s3: S3, options: dict[str, object]
) -> None:
    with pytest.raises(JobError, match=r"s3://|--storage-options"):
        names("s3://bucket/x", **options)


def test_storage_options_reach_the_filesystem(s3: S3) -> None:
    options = {"key": "other", "secret": "words", "endpoint_url": s3.endpoint}
    place = locate("s3://bucket/options", options)
    (place / "x").write_bytes(b"1")
    assert (place / "x").read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_the_etag_changes_with_the_content_and_only_then(kind: str, tmp_path: Path, s3: S3) -> None:
    uri = {"local": str(tmp_path), "s3": "s3://bucket/tags"}[kind]
    file = locate(uri) / "a.jpg"

    def etag() -> str | None:
        (found,) = list_objects(locate(uri))
        return found.etag

    file.write_bytes(b"one")
    before = etag()
    assert before == etag()
    assert before is not None, "an object without a tag cannot be seen to change"
    assert '"' not in before
    file.write_bytes(b"two")
    assert etag() != before


def test_deleting_what_is_gone_is_fine(tmp_path: Path, memory: str, s3: S3) -> None:
    for uri in (str(tmp_path), memory, "s3://bucket/gone"):
        file = locate(uri) / "x"
        file.write_bytes(b"1")
        assert file.exists()
        file.delete()
        assert not file.exists()
        file.delete()


@pytest.mark.parametrize("name", STRANGE)
def test_a_key_is_taken_literally(name: str, s3: S3) -> None:
    root = locate(f"s3://bucket/strange-{list(STRANGE).index(name)}")
    take_literally(root, name)
    assert (locate(f"{root.uri}/{name}").path, locate(f"{root.uri}/{name}").uri) == (
        (root / name).path,
        (root / name).uri,
    )


def test_a_key_may_begin_with_a_slash_and_have_two_of_them(s3: S3) -> None:
    place = locate("s3://bucket//slashes//deep")
    locate("s3://bucket/slashes/deep/other").write_bytes(b"another")
    (place / "file").write_bytes(b"x")
    assert place.entries() == {"file": 1}
    assert locate("s3://bucket/slashes").entries() == {}
    assert (place / "file").size() == 1
    (place / "file").move_to(place / "moved")
    assert place.names() == ["moved"]


@pytest.fixture
def asked(s3: S3) -> Iterator[FaultyProxy]:
    """An endpoint that notes what it is asked."""
    with FaultyProxy(s3.endpoint) as proxy:
        yield proxy


def methods(proxy: FaultyProxy) -> list[str]:
    taken = [request.method for request in proxy.requests]
    proxy.requests.clear()
    return taken


def test_each_thing_that_is_asked_about_a_place_is_one_request(asked: FaultyProxy) -> None:
    place = locate("s3://bucket/counted", asked.options)
    for name in ("b", "a", "folder/c"):
        (place / name).write_bytes(name.encode())
    locate("s3://bucket/counted/").at("bucket/counted/").write_bytes(b"")  # as consoles leave it
    asked.requests.clear()
    assert list(place.entries().items()) == [("a", 1), ("b", 1)]
    assert methods(asked) == ["GET"]
    assert place.names() == ["a", "b"]
    assert methods(asked) == ["GET"]
    for nothing in (place / "nowhere", place / "a"):
        assert nothing.entries() == {}
        assert methods(asked) == ["GET"]
    for name, size in {"a": 1, "nothing": None, "folder": None}.items():
        assert (place / name).size() == size
        assert methods(asked) == ["HEAD"]
    (place / "a").move_to(place / "moved")
    assert methods(asked) == ["PUT", "DELETE"]
    assert locate("s3://bucket").size() is None
    assert locate("s3://no-such-bucket/x").entries() == {}


def test_a_page_of_entries_is_a_request_and_all_of_them_are_there(asked: FaultyProxy) -> None:
    options = {**asked.options, "s3_additional_kwargs": {"MaxKeys": 3}}
    place = locate("s3://bucket/paged", options)
    for number in range(8):
        (place / f"{number}").write_bytes(bytes(number))
    asked.requests.clear()
    assert place.entries() == {f"{number}": number for number in range(8)}
    assert methods(asked) == ["GET"] * 3


def test_a_move_goes_over_what_is_there(s3: S3) -> None:
    place = locate("s3://bucket/moved")
    source, target = place / "attempts" / "a", place / "maps" / "a"
    target.write_bytes(b"old")
    source.write_bytes(b"new!")
    source.move_to(target)
    assert (source.size(), target.read_bytes()) == (None, b"new!")
    target.move_to(target)
    assert target.read_bytes() == b"new!"


def test_nothing_cannot_be_moved(asked: FaultyProxy) -> None:
    place = locate("s3://bucket/unmoved", asked.options)
    (place / "target").write_bytes(b"old")
    (place / "folder" / "file").write_bytes(b"x")
    for source in (place / "nothing", place / "folder"):
        for target in (place / "target", source):
            with pytest.raises(FileNotFoundError):
                source.move_to(target)
    assert (place / "target").read_bytes() == b"old"
    assert "DELETE" not in methods(asked)


def test_what_vanishes_while_it_is_moved_was_not_there(asked: FaultyProxy) -> None:
    place = locate("s3://bucket/vanishing", asked.options)
    (place / "a").write_bytes(b"x")

    def late(request: Request) -> None:
        if request.method == "PUT":
            locate("s3://bucket/vanishing/a").delete()

    asked.rules.append(late)
    with pytest.raises(FileNotFoundError):
        (place / "a").move_to(place / "b")
    assert place.entries() == {}


def test_moves_come_to_their_end_while_requests_fail(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, share=0.3, seed=2, stall=0.1) as proxy:
        place = locate("s3://bucket/failing", proxy.options, RetryPolicy(attempts=12))
        for number in range(6):
            (place / "from" / f"{number}").write_bytes(bytes(number))
            (place / "from" / f"{number}").move_to(place / "to" / f"{number}")
            assert (place / "to" / f"{number}").size() == number
        assert (place / "from").entries() == {}
        assert (place / "to").entries() == {f"{number}": number for number in range(6)}
        assert proxy.failures > 3


def test_what_s3_does_not_copy_in_one_request_is_copied_in_parts(
    asked: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 6 * 2**20
    monkeypatch.setattr(s3fs.core, "MANAGED_COPY_THRESHOLD", size - 1)
    place = locate("s3://bucket/large", asked.options)
    (place / "a").write_bytes(bytes(size))

    def too_large(request: Request) -> Refusal | None:
        copies = request.method == "PUT" and request.path.endswith("large/b")
        return Refusal(400, "InvalidRequest") if copies and "?" not in request.target else None

    asked.rules.append(too_large)
    (place / "a").move_to(place / "b")
    assert place.entries() == {"b": size}


def test_an_object_about_which_nothing_can_be_learnt_is_not_called_missing(
    asked: FaultyProxy,
) -> None:
    file = locate("s3://bucket/learnt", asked.options)
    file.write_bytes(b"x")
    asked.refuse(403, "*", "bucket/learnt")
    for ask in (file.size, file.exists, lambda: file.arrow.open_input_file(file.path)):
        with pytest.raises(PermissionError):
            ask()


def test_a_place_travels_to_another_process(tmp_path: Path, s3: S3) -> None:
    for uri in (str(tmp_path), "s3://bucket/travels"):
        place = locate(uri)
        assert place.arrow is not None, "even after its Arrow filesystem was made"
        (place / "x").write_bytes(b"there")
        script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read_bytes())"
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=pickle.dumps(place / "x"),
            capture_output=True,
            check=False,
        )
        assert done.stdout.decode().strip() == "b'there'", done.stderr.decode()
