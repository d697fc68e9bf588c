"""A node that is lost with what was made there: it is made again, and no image comes twice."""

import os
import signal
import sys
from pathlib import Path

from PIL import Image

from job.results import verification
from job.storage.opening import locate
from tests.conftest import picture
from tests.end_to_end.processes import outcome, started, wait_for, worker_nodes
from tests.end_to_end.rebuilt import fails_at_first
from tests.outputs import check_each_image_once, check_equal_to_sequential, rows

# Maps that are too large to travel with Ray's messages: they lie on the node that has made them.
IMAGES, HEIGHT, WIDTH = 48, 240, 320
# As many are predicted before the node is lost: more than are encoded by then.
BATCHES = 8
STEPS = ("--images-per-file=8", "--images-per-task=8", "--batch-size=4", "--max-error-rate=1")


def test_what_is_lost_with_a_node_is_made_again_and_no_image_comes_twice(
    model_dir: Path, tmp_path: Path
) -> None:
    source, output, notes = tmp_path / "in", tmp_path / "out", tmp_path / "notes"
    source.mkdir()
    notes.mkdir()
    for number in range(IMAGES):
        image = Image.fromarray(picture(1500 + number, HEIGHT, WIDTH))
        image.save(source / f"{number:04d}.jpg")
    words = ["run", str(source), str(output), "--model", str(model_dir), *STEPS]
    rebuilt = [sys.executable, "-m", "tests.end_to_end.rebuilt", *words]
    with (
        worker_nodes(1, 1) as cluster,
        started(rebuilt, {"RAY_ADDRESS": cluster["address"], "NOTES": str(notes)}) as process,
    ):
        wait_for(lambda: len(list(notes.glob("predicted-*"))) >= BATCHES, 240, "maps to lie there")
        node = int((notes / "node").read_text())
        assert b"raylet" in Path(f"/proc/{node}/cmdline").read_bytes()
        os.kill(node, signal.SIGKILL)
        os.kill(int(cluster["cluster"]), signal.SIGUSR1)
        (notes / "go").touch()
        finished = outcome(process, timeout=240)
    assert finished.exit_code == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    check_each_image_once(output, IMAGES)
    check_equal_to_sequential(output, model_dir)
    mapped = {Path(row["uri"]).stem for row in rows(output, "maps")}
    failed = {Path(row["uri"]).stem for row in rows(output, "errors")}
    again = {name for name in mapped if fails_at_first(name)}
    assert again, "what was lost with the node was loaded again, and could be had"
    assert {name for name in failed if not fails_at_first(name)} == set()
    assert verification.verify(locate(str(output)), deep=True).is_complete
