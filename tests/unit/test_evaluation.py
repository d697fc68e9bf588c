"""Evaluation: every map is scored against its own annotation, or a sentence says why not."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from job import schema
from job.cli import main, text
from job.errors import ConfigError, JobError, StorageError
from job.kernels.png import encode_map
from job.models.checkpoint import Origin
from job.outputs.dataset_card import write_card
from job.outputs.palette import palette
from job.outputs.receipts import Receipt
from job.results.annotations import match
from job.results.evaluation import evaluate
from job.storage import parquet
from job.storage.location import Location
from job.storage.opening import locate
from tests import hosted as hosted  # registers hosted://

NAMES = ("sky", "ground", "building", "tree", "vehicle")


COLOURS = palette(NAMES)


def ids(seed: int, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (6, 8)).astype(np.uint8)


def grey(values: np.ndarray) -> bytes:
    return encode_map(values.astype(np.uint8), grayscale=True)


def write_output(
    output: Location,
    maps: dict[str, np.ndarray],
    source: str | None,
    unmapped: tuple[str, ...] = (),
) -> Location:
    """An OUTPUT as a run leaves it, with maps for images by their URIs."""
    rows = []
    for number, (uri, values) in enumerate(maps.items()):
        found = [
            {"label": int(label), "name": NAMES[label], "pixels": int((values == label).sum())}
            for label in np.unique(values)
        ]
        rows.append(
            {
                "id": number,
                "uri": uri,
                "height": 6,
                "width": 8,
                "classes": found,
                "map": {"bytes": encode_map(values, COLOURS)},
                "confidence": 0.5,
                "model": "m",
                "run_id": "run-1",
            }
        )
    table = pa.Table.from_pylist(rows, schema=schema.MAPS)
    (output / "maps" / "run-1-000000.parquet").write_bytes(parquet.to_bytes(table))
    listed = [{"id": n, "uri": uri, "size": 1} for n, uri in enumerate([*maps, *unmapped])]
    table = pa.Table.from_pylist(listed, schema=schema.MANIFEST)
    (output / "manifest" / "part-0.parquet").write_bytes(parquet.to_bytes(table))
    if source is not None:
        origin = Origin("a/model", None, "digest")
        Receipt("run-1", "finished", source, origin, settings={}).write(output)
    return output


def write_truth(folder: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


TWO = {"/in/a/x.jpg": ids(1), "/in/b/x.jpg": ids(2)}


@pytest.mark.parametrize("source", ["/in", "/in/", "/in/*/*.jpg", "elsewhere/in", None])
def test_photographs_of_one_name_in_two_folders_have_their_own_truth(
    output: Location, tmp_path: Path, source: str | None
) -> None:
    write_output(output, TWO, source)
    truth = write_truth(tmp_path / "truth", {"b/x.png": grey(ids(2)), "a/x.png": grey(ids(1))})
    scores = evaluate(output, truth)
    assert (scores.images, scores.without_truth, scores.pixel_accuracy) == (2, 0, 1.0)


def test_an_image_of_a_linked_folder_has_the_truth_of_the_name_that_leads_to_it(
    output: Location, tmp_path: Path
) -> None:
    for folder in ("disk/one", "disk/two/deep", "in/c", "way"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "in" / "a").symlink_to(tmp_path / "disk" / "one")
    (tmp_path / "disk" / "one" / "up").symlink_to(tmp_path / "disk")
    (tmp_path / "in" / "c" / "b").symlink_to(tmp_path / "disk" / "two")
    (tmp_path / "way" / "in").symlink_to(tmp_path / "in")
    files = ("disk/one/x.jpg", "disk/two/deep/x.jpg", "in/c/x.jpg")
    maps = {str(tmp_path / name): ids(seed) for seed, name in enumerate(files)}
    truth = write_truth(
        tmp_path / "truth",
        {f"{n}/x.png": grey(ids(seed)) for seed, n in enumerate(("a", "c/b/deep", "c"))},
    )
    for source in ("in", "way/in", "way/in/**", "way/../in/*/**"):
        write_output(output, maps, f"{tmp_path}/{source}")
        scores = evaluate(output, truth)
        assert (scores.images, scores.without_truth, scores.pixel_accuracy) == (3, 0, 1.0), source


def test_images_of_an_earlier_manifest_are_named_as_input_was(
    output: Location, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    (tmp_path / "way").symlink_to("in")
    before, now = tmp_path / "way" / "a" / "x.jpg", tmp_path / "in" / "b" / "x.jpg"
    write_output(output, {str(before): ids(1), str(now): ids(2)}, f"{tmp_path}/way")
    truth = write_truth(tmp_path / "truth", {"a/x.png": grey(ids(1)), "b/x.png": grey(ids(2))})
    scores = evaluate(output, truth)
    assert (scores.images, scores.without_truth, scores.pixel_accuracy) == (2, 0, 1.0)


def test_an_image_below_a_folder_of_the_same_name_as_input_has_its_own_truth(
    output: Location, tmp_path: Path
) -> None:
    write_output(output, {"/a/x.jpg": ids(1), "/a/a/x.jpg": ids(2)}, "/a")
    truth = write_truth(tmp_path / "truth", {"x.png": grey(ids(1)), "a/x.png": grey(ids(2))})
    assert evaluate(output, truth).pixel_accuracy == 1.0


def test_truth_may_lie_in_other_folders_than_input(output: Location, tmp_path: Path) -> None:
    """As ADE20K has it: images/training/x.jpg and annotations/training/x.png."""
    maps = {"/ade/images/tr/x.jpg": ids(1), "/ade/images/va/x.jpg": ids(2)}
    write_output(output, maps, "/ade")
    truth = write_truth(tmp_path / "truth", {"tr/x.png": grey(ids(1)), "va/x.png": grey(ids(2))})
    assert evaluate(output, truth).pixel_accuracy == 1.0


def test_names_alone_are_enough_where_there_is_no_doubt(output: Location, tmp_path: Path) -> None:
    write_output(output, {"/in/a/x.jpg": ids(1), "/in/b/y.jpg": ids(2)}, "/in")
    truth = write_truth(tmp_path / "truth", {"x.png": grey(ids(1)), "y.png": grey(ids(2))})
    assert evaluate(output, truth).pixel_accuracy == 1.0


def test_an_image_without_an_annotation_gets_none_of_another_folder(
    output: Location, tmp_path: Path
) -> None:
    write_output(output, TWO, "/in", unmapped=("/in/c/x.jpg",))
    truth = write_truth(tmp_path / "truth", {"a/x.png": grey(ids(1)), "c/x.png": grey(ids(3))})
    scores = evaluate(output, truth)
    assert (scores.images, scores.without_truth, scores.pixel_accuracy) == (1, 1, 1.0)


@pytest.mark.parametrize(
    ("images", "files", "named"),
    [
        (["/in/a/x.jpg", "/in/b/x.jpg"], ["x.png"], ["/in/a/x.jpg", "/in/b/x.jpg", "x.png"]),
        (["/in/x.jpg"], ["a/x.png", "b/x.png"], ["a/x.png", "b/x.png", "/in/x.jpg"]),
        (["/in/x.jpg", "/in/x.webp"], ["x.png"], ["/in/x.jpg", "/in/x.webp"]),
        (["/in/x.jpg"], ["x.png", "x.PNG"], ["x.png", "x.PNG"]),
    ],
)
def test_doubt_is_refused_with_both_files_named(
    output: Location, tmp_path: Path, images: list[str], files: list[str], named: list[str]
) -> None:
    write_output(output, dict.fromkeys(images, ids(1)), "/in")
    truth = write_truth(tmp_path / "truth", dict.fromkeys(files, grey(ids(1))))
    with pytest.raises(ConfigError, match="could be the annotation of") as refused:
        evaluate(output, truth)
    for name in named:
        assert name in str(refused.value)


@pytest.mark.parametrize(
    ("images", "root", "files", "truth", "pairs"),
    [
        # One side has no folders: names are all there is.
        (["/in/a/x.jpg", "/in/b/y.jpg"], "/in", ["/t/x.png"], "/t", {"/in/a/x.jpg": "/t/x.png"}),
        (["/in/x.jpg"], "/in", ["/t/a/x.png"], "/t", {"/in/x.jpg": "/t/a/x.png"}),
        (["/in/a/x.jpg"], "/in", ["/t/x.png"], "/t/*.png", {"/in/a/x.jpg": "/t/x.png"}),
        (["/in/a/x.jpg"], "/in", ["/t/x.png"], "/t/x.png", {"/in/a/x.jpg": "/t/x.png"}),
        # A folder that agrees is enough, and then those that do not count for nothing.
        (
            ["/d/images/va/x.jpg", "/d/images/va/y.jpg"],
            "/d",
            ["/d/ann/va/x.png", "/d/ann/tr/y.png"],
            "/d/ann",
            {"/d/images/va/x.jpg": "/d/ann/va/x.png"},
        ),
        # One folder of either says what is in it: images, annotations.
        (["/v/JPEGImages/x.jpg"], "/v", ["/v/SegmentationClass/x.png"], "/v", "all"),
        (["/d/images/va/x.jpg"], "/d/images/va", ["/d/ann/va/x.png"], "/d", "all"),
        (["/s/1/im/x.jpg", "/s/2/im/x.jpg"], "/s", ["/s/1/m/x.png", "/s/2/m/x.png"], "/s", "all"),
        (["/i/x.jpg", "/i/im/y.jpg"], "/i", ["/i/m/x.png", "/i/m/y.png"], "/i", "all"),
        (["s3://b/d/im/x.jpg"], "s3://b/d", ["b/d/m/x.png"], "b/d", "all"),
        # Where folders agree with one image, those of another speak against it.
        (
            ["/d/im/tr/x.jpg", "/d/im/va/x.jpg", "/d/im/va/y.jpg"],
            "/d/im",
            ["/d/ann/tr/x.png", "/d/ann/tr/y.png"],
            "/d/ann/tr",
            {"/d/im/tr/x.jpg": "/d/ann/tr/x.png"},
        ),
        (["/e/f/tr/x.jpg"], "/e", ["/t/u/v/tr/x.png"], "/t/u/v", "all"),
        # Names and folders on the web are escaped, and have queries.
        (
            ["http://h/i/get?of=a.jpg", "http://h/i/get?of=b.jpg"],
            "http://h/i",
            ["/t/a.png"],
            "/t",
            {"http://h/i/get?of=a.jpg": "/t/a.png"},
        ),
        (["http://h/i/a%20b.jpg?v=2"], "http://h/i", ["/t/a b.png"], "/t", "all"),
        (["http://h/my%20i/a/x.jpg"], "http://h/my%20i/", ["/t/a/x.png"], "/t", "all"),
        (["/in/a b/x.jpg"], "/in", ["http://h/my%20t/a%20b/x.png"], "http://h/my%20t", "all"),
        (["zip://a/x.jpg::/a.zip"], "simplecache::zip://::/a.zip", ["/t/a/x.png"], "/t", "all"),
    ],
)
def test_pairs_are_those_that_folders_do_not_speak_against(
    images: list[str], root: str, files: list[str], truth: str, pairs: Any
) -> None:
    expected = dict(zip(images, files, strict=True)) if pairs == "all" else pairs
    assert match(images, [root], files, truth) == expected


@pytest.mark.parametrize("root", ["/d/images", "/d/images/val", "/d/images/val/*.jpg", "/d"])
@pytest.mark.parametrize("truth", ["/d/ann", "/d/ann/*/*.png", "/d/ann/tr", "/d/a"])
def test_a_name_that_is_the_same_in_another_folder_is_no_pair(root: str, truth: str) -> None:
    images = ["/d/images/val/1.jpg", "/d/images/val/2.jpg"]
    files = ["/d/ann/train/1.png", "/d/ann/train/2.png"]
    said = r"train/1\.png has the name of /d/images/val/1\.jpg, and is in another folder.*--truth"
    with pytest.raises(ConfigError, match=said):
        match(images, [root], files, truth)
    assert match(images, [root], files, "/d/ann/train") == dict(zip(images, files, strict=True))


def test_a_remedy_is_told_where_it_is_one() -> None:
    images = ["/d/images/one/1.jpg", "/d/images/two/1.jpg"]
    files = ["/d/ann/1/1.png", "/d/ann/2/1.png"]
    with pytest.raises(ConfigError, match=r"another folder.*in the same folders as the images$"):
        match(images, ["/d/images"], files, "/d/ann")


def test_images_and_annotations_are_compared_by_their_whole_uris(tmp_path: Path) -> None:
    output = write_output(
        locate(str(tmp_path / "out")), {"hosted://h/d/im/x.jpg": ids(1)}, "hosted://h/d"
    )
    (locate("hosted://h/d/masks") / "x.png").write_bytes(grey(ids(1)))
    assert evaluate(output, "hosted://h/d").pixel_accuracy == 1.0
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("d/im/x.png", grey(ids(1)))
    assert evaluate(output, f"zip://::{tmp_path}/t.zip").pixel_accuracy == 1.0


def test_what_lies_beside_annotations_is_left_alone(output: Location, tmp_path: Path) -> None:
    write_output(output, {"/in/x.jpg": ids(1)}, "/in")
    files = {"x.png": grey(ids(1)), "x.json": b"{}", "x.jpg": b"preview", "README.md": b""}
    assert evaluate(output, write_truth(tmp_path / "truth", files)).pixel_accuracy == 1.0


def test_archives_and_web_queries_are_no_part_of_an_images_name(
    output: Location, tmp_path: Path
) -> None:
    maps = {"zip://a/x.jpg::/data/1.zip": ids(1), "https://host/b/x.jpg?v=1.2": ids(2)}
    write_output(output, maps, None)
    truth = write_truth(tmp_path / "truth", {"a/x.png": grey(ids(1)), "b/x.png": grey(ids(2))})
    assert evaluate(output, truth).pixel_accuracy == 1.0


def colours() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (colours(), "mode RGB is not a map of class ids"),
        (b"", "is no annotation: it is empty. A PNG is expected"),
        (b"\xff\xd8\xff\xe0 a JPEG", "is no annotation: it is no PNG. A PNG is expected"),
        (b"II*\0 a TIFF", "is no annotation: it is no PNG. A PNG is expected"),
        (grey(ids(1))[:40], "begins like a PNG, but its header is damaged. A PNG is expected"),
        (grey(ids(1))[:60], "is no annotation"),
        (grey(np.zeros((3, 4))), "the annotation is 4×3, the map 8×6"),
    ],
    ids=["colours", "empty", "JPEG", "TIFF", "header", "cut", "size"],
)
def test_an_annotation_that_cannot_be_compared_is_named(
    output: Location, tmp_path: Path, data: bytes, says: str
) -> None:
    write_output(output, {"/in/x.jpg": ids(1)}, "/in")
    truth = write_truth(tmp_path / "truth", {"x.png": data})
    with pytest.raises(StorageError, match=says) as refused:
        evaluate(output, truth)
    assert str(refused.value).startswith(f"{truth}/x.png")
    assert "Error" not in str(refused.value)
    assert "BytesIO" not in str(refused.value)


def test_a_map_that_is_damaged_is_named(output: Location, tmp_path: Path) -> None:
    write_output(output, {"/in/x.jpg": ids(1)}, "/in")
    file = Path(output.path, "maps", "run-1-000000.parquet")
    rows: list[dict[str, Any]] = pa.parquet.read_table(file).to_pylist()
    rows[0]["map"]["bytes"] = b"no png"
    file.write_bytes(parquet.to_bytes(pa.Table.from_pylist(rows, schema=schema.MAPS)))
    truth = write_truth(tmp_path / "truth", {"x.png": grey(ids(1))})
    with pytest.raises(StorageError, match=r"the map of /in/x\.jpg \(id 0\) cannot be read"):
        evaluate(output, truth)


def test_classes_that_the_model_cannot_have_are_refused(output: Location, tmp_path: Path) -> None:
    write_output(output, {"/in/x.jpg": ids(1)}, "/in")
    write_card(output, NAMES, COLOURS)
    truth = write_truth(tmp_path / "truth", {"x.png": grey(ids(1) + 1)})
    with pytest.raises(ConfigError, match=r"x\.png has class 5, but .* 0 to 4.*--reduce-labels"):
        evaluate(output, truth)
    assert evaluate(output, truth, reduce_labels=True).pixel_accuracy == 1.0
    write_truth(tmp_path / "truth", {"x.png": grey(ids(1) + 40)})
    with pytest.raises(ConfigError, match=r"x\.png has class 44, .* of other classes\?"):
        evaluate(output, truth)
    with pytest.raises(ConfigError, match=r"x\.png has class 44, .* are 1 to 5"):
        evaluate(output, truth, reduce_labels=True)


def test_labels_off_by_one_are_told_where_every_class_exists(
    output: Location, tmp_path: Path
) -> None:
    few = ids(1, classes=4)
    write_output(output, {"/in/x.jpg": few}, "/in")
    write_card(output, NAMES, COLOURS)
    truth = write_truth(tmp_path / "truth", {"x.png": grey(few + 1)})
    said = text.of_scores(evaluate(output, truth))
    assert "with --reduce-labels the pixel accuracy would be 1.0000" in said
    assert "--reduce" not in text.of_scores(evaluate(output, truth, reduce_labels=True))
    write_truth(tmp_path / "truth", {"x.png": grey(few)})
    said = text.of_scores(evaluate(output, truth, reduce_labels=True))
    assert "without --reduce-labels the pixel accuracy would be" in said


def test_pixels_that_do_not_count_stay_so_when_labels_are_reduced(
    output: Location, tmp_path: Path
) -> None:
    write_output(output, {"/in/x.jpg": ids(1)}, "/in")
    write_card(output, NAMES, COLOURS)
    marked = ids(1) + 1
    marked[0], marked[1] = 255, 0
    truth = write_truth(tmp_path / "truth", {"x.png": grey(marked)})
    scores = evaluate(output, truth, reduce_labels=True)
    assert scores.confusion.sum() == 4 * 8
    assert scores.pixel_accuracy == 1.0


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_annotations_of_few_bits_are_read_as_they_are(
    output: Location, tmp_path: Path, bits: int
) -> None:
    """Pillow stretches their values to 8 bits."""
    few = ids(1, classes=min(4, 2**bits))
    write_output(output, {"/in/x.jpg": few}, "/in")
    Path(tmp_path / "truth").mkdir()
    png = png_of_few_bits(few, bits)
    assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).max() == few.max() * (
        255 // (2**bits - 1)
    )
    truth = write_truth(tmp_path / "truth", {"x.png": png})
    assert evaluate(output, truth).pixel_accuracy == 1.0


def png_of_few_bits(values: np.ndarray, bits: int) -> bytes:
    import struct
    import zlib

    per_byte = 8 // bits
    shifts = np.arange(per_byte)[::-1] * bits
    packed = (values.reshape(len(values), -1, per_byte) << shifts).sum(-1).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_every_class_has_its_name_also_one_that_no_map_has(
    output: Location, tmp_path: Path
) -> None:
    sky = np.zeros((6, 8), np.uint8)
    write_output(output, {"/in/x.jpg": sky}, "/in")
    write_card(output, NAMES, COLOURS)
    truth = write_truth(tmp_path / "truth", {"x.png": grey(np.full((6, 8), 3))})
    scores = evaluate(output, truth)
    assert scores.names == NAMES
    assert scores.confusion[3, 0] == 48


def test_an_output_without_anything_to_compare_is_said(output: Location, tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth", {"x.png": grey(ids(1))})
    with pytest.raises(StorageError, match=rf"OUTPUT {output.uri} has no manifest: no run has beg"):
        evaluate(output, truth)
    write_output(output, {}, "/in", unmapped=("/in/x.jpg",))
    with pytest.raises(StorageError, match=rf"OUTPUT {output.uri} has no maps"):
        evaluate(output, truth)


def test_no_annotation_at_all_is_said(output: Location, tmp_path: Path) -> None:
    write_output(output, TWO, "/in")
    truth = write_truth(tmp_path / "truth", {"z.png": grey(ids(1))})
    with pytest.raises(JobError, match="no annotation bears the name"):
        evaluate(output, truth)


def test_the_verb_ends_in_a_sentence(
    output: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_output(output, {"/in/x.jpg": ids(1)}, "/in")
    truth = write_truth(tmp_path / "truth", {"x.png": colours()})
    assert main.main(["evaluate", output.path, "--truth", truth]) == 3
    assert capsys.readouterr().err.startswith(f"error: {truth}/x.png is no annotation")
    write_truth(tmp_path / "truth", {"x.png": grey(ids(1))})
    assert main.main(["evaluate", output.path, "--truth", truth]) == 0
    assert "mIoU 1.0000 over 1 image\n" in capsys.readouterr().out
