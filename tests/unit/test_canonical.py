"""Canonical: a URI's one form stays itself, and is the same file to whoever opens it."""

import os
from pathlib import Path

import pytest
from yarl import URL

from job.inputs.left_out import LeftOut
from job.inputs.listed_files import ListedFiles
from job.storage.canonical import Canonical
from job.storage.uris import absolute

WEB = [
    *("http://HOST", "https://Host:443/a.jpg#top", "http://host:8080/a//b/./../c.jpg"),
    *("http://me:pass@Host:80/%41%2f%2e%2E/b.jpg", "http://host/ü ö.jpg?q=ü ö&Q=%C3%BC+a"),
    *("http://host/%zz%/100%.jpg", "http://host/[a]{b}|c\\d^`.jpg", "http://host?File=A.jpg"),
    *("http://host/a;b=c,d@e:f!$&'()*+.jpg", "http://host/a%2Bb%20c+d.jpg", "http://[::1]:80/a"),
]
OTHERS = [
    *("s3a://b/a//./b.jpg", "s3:///b/k?versionId=1#2", "gcs://b/%41.jpg", "az://box/A/../b.jpg"),
    *("abfss://box@One.dfs.core.windows.net/a.jpg", "sftp://me@HOST:22/a.jpg", "memory://x//y.jpg"),
    *("hf://datasets/A/b@main/c.jpg", "simplecache::s3a://b/k.jpg", "zip://A/b.jpg::s3a://b/c.zip"),
    *("zip://a.jpg::tar://x/../b.zip::simplecache::http://HOST:80/%41.tar", "zip://no-archive.jpg"),
]


@pytest.mark.parametrize(
    "uri", [*WEB, *OTHERS, "http://[bad/a.jpg", "/a//b/../c.jpg", "//..//a.jpg"]
)
def test_the_one_form_of_a_uri_is_that_of_itself(uri: str) -> None:
    once = Canonical()(uri)
    assert Canonical()(once) == once


@pytest.mark.parametrize("uri", WEB)
def test_a_web_server_is_asked_for_the_same(uri: str) -> None:
    asked, before = (URL(text).with_fragment(None) for text in (Canonical()(uri), uri))
    assert (asked.scheme, asked.host, asked.port) == (before.scheme, before.host, before.port)
    assert (asked.user, asked.password) == (before.user, before.password)
    assert asked.raw_path_qs == before.raw_path_qs


def test_a_local_path_is_the_one_that_the_system_opens(tmp_path: Path) -> None:
    (tmp_path / "far" / "in").mkdir(parents=True)
    (tmp_path / "far" / "in" / "a.jpg").write_bytes(b"x")
    (tmp_path / "way").symlink_to("far/in")
    (tmp_path / "far" / "loop").symlink_to("loop")
    canonical = Canonical()
    for path in ("way/a.jpg", "way/../in/./a.jpg", "far//in/../../way/a.jpg", "way/../loop/b.jpg"):
        whole = f"{tmp_path}/{path}"
        folder, name = os.path.split(whole)
        assert canonical(whole) == f"{os.path.realpath(folder)}/{name}"
    assert canonical(f"{tmp_path}/gone/way/../a.jpg") == f"{tmp_path}/gone/a.jpg"
    assert canonical("/a.jpg") == canonical("//a.jpg") == "/a.jpg"


def test_folders_whose_names_are_no_text_are_followed_as_well(tmp_path: Path) -> None:
    odd = os.fsdecode(bytes(tmp_path) + b"/\xff")
    os.makedirs(f"{odd}/in")
    (tmp_path / "there").mkdir()
    for path in (f"{odd}/in/a.jpg", f"{tmp_path}/there/b.jpg"):
        Path(path).write_bytes(b"x")
    os.symlink(tmp_path / "there", f"{odd}/way")
    source = ListedFiles(odd)
    rows = list(source.list(LeftOut()))
    assert [row.uri for row in rows] == [f"{tmp_path}/\\udcff/in/a.jpg", f"{tmp_path}/there/b.jpg"]
    assert [source.fetch(row) for row in rows] == [b"x", b"x"]
    canonical = Canonical()
    assert [canonical(row.uri) for row in rows] == [row.uri for row in rows]
    assert canonical(f"{tmp_path}/\\udcff/way/b.jpg") == rows[1].uri


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""),
        ("photos", "{here}/photos"),
        ("way", "{here}/photos"),
        ("file://{here}/way/.", "{here}/photos"),
        ("way/*.jpg", "{here}/photos/*.jpg"),
        ("odd/**", "{here}/odd [1]/**"),
        ("odd [1]/*", "{here}/odd [1]/*"),
        ("way/file.jpg", "{here}/photos/file.jpg"),
        ("nowhere/./x", "{here}/nowhere/x"),
        ("//", "/"),
        ("zip://in::way/a.zip", "zip://in::{here}/photos/a.zip"),
        ("zip://in::S3a", "zip://in::{here}/S3a"),
        ("simplecache::http://HOST:80/A*?b", "simplecache::http://host/A*?b"),
        ("s3a://bucket/a//*.jpg", "s3://bucket/a//*.jpg"),
    ],
)
def test_an_input_has_one_name_from_every_folder(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "odd [1]").mkdir()
    (tmp_path / "way").symlink_to("photos")
    (tmp_path / "odd").symlink_to("odd [1]")
    (tmp_path / "photos" / "file.jpg").symlink_to("5f1d")
    monkeypatch.chdir(tmp_path)
    name = absolute(given.format(here=tmp_path))
    assert name == expected.format(here=tmp_path)
    assert absolute(name) == name
