"""docs/library.md tells the truth: its script runs anywhere."""

import shutil
from pathlib import Path

from PIL import Image

from tests.end_to_end.hub import fake_hub
from tests.end_to_end.processes import finish
from tests.installed import install
from tests.unit.test_readme import snippets


def test_library_snippet_is_a_script_that_runs_anywhere(
    pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    (snippet,) = (text for text in snippets("python") if "import BatchPredictor" in text)
    here = tmp_path / "here"
    here.mkdir()
    (here / "script.py").write_text(snippet)
    photos = sorted(pictures.glob("*.jpg"))[:6]
    (here / "photos").mkdir()
    for photo in photos:
        shutil.copy(photo, here / "photos")
    python = install(tmp_path, editable=True).python
    with fake_hub(model_dir) as endpoint:
        env = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
        finished = finish([python, "script.py"], env, cwd=here)
    assert finished.exit_code == 0, finished.stderr
    said = dict(line.split(" ", 1) for line in finished.stdout.splitlines())
    assert {Path(path).name: shape for path, shape in said.items()} == {
        # Ray Data reads images as they are stored, whatever EXIF says of their orientation.
        photo.name: str(Image.open(photo).size[::-1])
        for photo in photos
    }
