"""A run over files that no camera wrote, under names that no person chose: each ends in one row."""

import os
from pathlib import Path

import pytest

from job import pipeline
from job.config import JobConfig
from job.results.verification import verify
from job.storage.opening import locate
from tests import hostile
from tests.outputs import manifest, rows

pytestmark = pytest.mark.usefixtures("ray_session")

# A few of them by hand: what the collection itself says might be wrong in the same way as the job.
KINDS = {
    "cut/50-percent.jpg": "truncated",
    "cut/50-percent.png": "truncated",
    "lying/ihdr-60000.png": "too_large",
    "lying/sof-65500.jpg": "too_large",
    "lying/frame-65535.gif": "too_large",
    "lying/siz-60000.jp2": "too_large",
    "lying/ring-of-one.tif": "map",
    "bomb-pixels.png": "too_large",
    "bomb-pixels.webp": "too_large",
    "bomb-png.ico": "too_large",
    "bomb-profile.png": "map",
    "odd/ycck.jpg": "map",
    "odd/float.tif": "map",
    "odd/multi-picture.jpg": "map",
    "odd/low.png": "map",
    "strangers/empty.jpg": "empty",
    "strangers/page.jpg": "not_an_image",
    "strangers/phone.jpg": "not_an_image",
    "metadata/exif-ring.jpg": "map",
}
SIZES = {
    "odd/low.png": (1, 30_000),
    "odd/narrow.png": (30_000, 1),
    "odd/one.gif": (1, 1),
    "odd/orientation-6.jpg": (64, 48),
    "odd/orientation-3.jpg": (48, 64),
    "odd/pages.tif": (48, 64),
    "metadata/xmp.png": (64, 48),
}


def config(source: Path, output: Path, model: Path) -> JobConfig:
    return JobConfig(
        input=str(source),
        output=str(output),
        model=str(model),
        pixel_limit=hostile.PIXEL_LIMIT,
        progress="none",
    )


def test_every_hostile_file_is_a_map_or_a_reason(
    tmp_path: Path, model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected = hostile.write(source)
    receipt = pipeline.run(config(source, output, model_dir))
    assert receipt.status == "finished"

    uris = {f"{source}/{name}": name for name in expected}
    listed = [row["uri"] for row in manifest(output)]
    assert len(listed) == len(expected)
    assert set(listed) == set(uris)

    maps = {uris[row["uri"]]: row for row in rows(output, "maps")}
    errors = {uris[row["uri"]]: row for row in rows(output, "errors")}
    assert len(maps) + len(errors) == len(expected)
    ended = {**dict.fromkeys(maps, "map"), **{n: row["error_type"] for n, row in errors.items()}}
    wrong = {name: ended.get(name) for name in expected if ended.get(name) not in expected[name]}
    assert not wrong, {name: errors[name]["message"] for name in wrong if name in errors}
    assert {name: ended[name] for name in KINDS} == KINDS
    assert {name: (maps[name]["height"], maps[name]["width"]) for name in SIZES} == SIZES

    unreadable = [row for row in errors.values() if not hostile.is_a_sentence(row["message"])]
    assert not unreadable
    assert {row["stage"] for row in errors.values()} == {"decode"}
    assert not any(row["retryable"] for row in errors.values())

    verdict = verify(locate(str(output)), deep=True)
    assert verdict.is_complete, verdict.problems
    assert (verdict.maps, verdict.open_errors) == (len(maps), len(errors))
    assert pipeline.run(config(source, output, model_dir)).remaining == 0
    assert "Error" not in capfd.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs file names of any bytes")
def test_a_name_that_is_not_utf_8_is_an_image_like_others(tmp_path: Path, model_dir: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [b"caf\xe9.jpg", b"\xff\xfe.jpg", b"plain.jpg"]
    for name in names:
        with open(os.path.join(os.fsencode(source), name), "wb") as file:
            file.write(hostile.originals()["jpg"])
    pipeline.run(config(source, output, model_dir))
    assert len(rows(output, "maps")) == len(names)
    assert verify(locate(str(output)), deep=True).is_complete
