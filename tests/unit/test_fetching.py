"""Fetching: an image is blamed only when another one can be read, in the same storage."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from job.errors import ImageError
from job.inputs.base import Input
from job.inputs.fetching import Doubt, Fetcher
from job.inputs.left_out import LeftOut
from job.inputs.listed_files import ListedFiles
from job.inputs.opening import open_input
from job.rows import Fault, Listed
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://
from tests.servers import serving_folder

Outcomes = list[bytes | ImageError | Fault]


def fetcher_of(source: Input) -> tuple[Fetcher, list[Listed]]:
    """A fetcher whose witnesses are the first, the middle and the last of what is listed."""
    found = list(source.list(LeftOut()))
    return Fetcher(source, witnesses=[found[0], found[3], found[-1]]), found


def through(fetcher: Fetcher, objects: list[Listed]) -> Outcomes:
    """What is made of each object in the end."""
    outcomes = dict(enumerate(map(fetcher.fetch, objects)))
    doubts = {n: (objects[n], was) for n, was in outcomes.items() if isinstance(was, Doubt)}
    return list({**outcomes, **fetcher.settle(doubts)}.values())  # type: ignore[arg-type]


def read(outcomes: Outcomes) -> list[str]:
    return [outcome.decode() if isinstance(outcome, bytes) else "" for outcome in outcomes]


IMAGES = [f"image {number}" for number in range(6)]


@pytest.mark.parametrize("what", ["renamed", "emptied"])
def test_a_folder_that_is_not_mounted_is_no_fault_of_its_files(six_files: Path, what: str) -> None:
    fetcher, objects = fetcher_of(ListedFiles(str(six_files)))
    away = shutil.move(six_files / "deep", six_files.parent / "away")
    if what == "emptied":
        (six_files / "deep").mkdir()
    for outcome in through(fetcher, objects):
        assert isinstance(outcome, Fault)
        assert (outcome.place, outcome.kind) == (f"INPUT {six_files}", "mount")
    if what == "emptied":
        (six_files / "deep").rmdir()
    shutil.move(away, six_files / "deep")
    assert read(through(fetcher, objects)) == IMAGES


def test_a_process_without_file_handles_blames_no_file(six_files: Path) -> None:
    import resource

    fetcher, objects = fetcher_of(ListedFiles(str(six_files)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Threads and pools need none: what is open already stays open.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        outcomes = through(fetcher, objects)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for outcome in outcomes:
        assert isinstance(outcome, Fault)
        assert outcome.kind == "node"
        assert "ulimit" in outcome.reason


def test_a_file_that_is_gone_is_missing_and_may_come_back_with_its_folder(six_files: Path) -> None:
    (six_files / "other").mkdir()
    (six_files / "other" / "gone.jpg").write_bytes(b"x")
    fetcher, objects = fetcher_of(ListedFiles(str(six_files)))
    os.unlink(six_files / "deep" / "2.jpg")
    shutil.rmtree(six_files / "other")
    found = through(fetcher, objects)
    errors = [outcome for outcome in found if isinstance(outcome, ImageError)]
    assert [(error.kind, error.retryable) for error in errors] == [
        ("missing", False),
        ("missing", True),
    ]
    assert read(found[:2]) == IMAGES[:2]


def test_a_part_of_a_file_is_not_taken_for_the_whole_file(six_files: Path) -> None:
    fetcher, objects = fetcher_of(open_input(str(six_files)))
    part = replace(objects[2], part="row 7")
    *whole, outcome = through(fetcher, [objects[2], part])
    assert read(whole) == ["image 2"]
    assert isinstance(outcome, ImageError)
    assert (outcome.kind, outcome.retryable) == ("unsupported", True)
    assert f"cannot read parts of {objects[2].uri} (here 'row 7')" in outcome.message


def listed_in(uri: str) -> list[Listed]:
    return list(ListedFiles(uri).list(LeftOut()))


def test_images_of_a_folder_on_the_web_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"image a")
    (folder / "sub dir" / "b#1.jpg").write_bytes(b"image b")
    with serving_folder(tmp_path) as address:
        objects = listed_in(f"{address}/in")
        fetcher = Fetcher(ListedFiles(f"{address}/in"), witnesses=objects[:1])
        assert read(through(pickle.loads(pickle.dumps(fetcher)), objects)) == ["image a", "image b"]
        (single,) = listed_in(f"{address}/in/a.jpg")
        assert single.size == 7
        assert read(through(fetcher, [single])) == ["image a"]
        (folder / "a.jpg").write_bytes(b"another one")
        (error,) = through(fetcher, [single])
        assert isinstance(error, ImageError)
        assert error.kind == "changed"
        (folder / "a.jpg").unlink()
        (error,) = through(fetcher, objects[:1])
        assert isinstance(error, ImageError | Fault)
        small = Fetcher(ListedFiles(f"{address}/in"), byte_limit=6)
        (error,) = through(small, objects[1:])
        assert isinstance(error, ImageError)
        assert error.kind == "too_large"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_images_are_read_from_the_archive_that_each_names(kind: str, tmp_path: Path) -> None:
    objects: list[Listed] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.jpg").write_bytes(f"{name} {number}".encode() * 1000)
        shutil.make_archive(str(tmp_path / name), kind, tmp_path / name)
        objects += listed_in(f"{kind}://::{tmp_path}/{name}.{kind}")
    source = ListedFiles(f"{kind}://::{tmp_path}/one.{kind}")
    fetcher = pickle.loads(pickle.dumps(Fetcher(source)))
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(fetcher.fetch, objects * 4))
    expected = [f"{name} {number}" * 1000 for name in ("one", "two") for number in range(6)]
    assert read(outcomes) == expected * 4


def test_images_of_an_earlier_host_are_not_read_from_the_new_one() -> None:
    for host in ("one", "two"):
        (locate(f"hosted://{host}/in") / "a.jpg").write_bytes(host.encode())
    (earlier,), (now,) = listed_in("hosted://one/in"), listed_in("hosted://two/in")
    assert earlier.uri != now.uri
    fetcher = Fetcher(ListedFiles("hosted://two/in"), witnesses=[now])
    fetcher = pickle.loads(pickle.dumps(fetcher))
    assert read(through(fetcher, [earlier, now, earlier])) == ["one", "two", "one"]
