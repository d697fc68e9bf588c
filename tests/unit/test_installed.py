"""Installed, as a wheel or editably: everything is there, from any directory, with its types."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.installed import Installed, copy_source, install, pip

CLIENT = """
from job import BatchPredictor, Checkpoint, JobConfig, predict_sequential

reveal_type(BatchPredictor)
reveal_type(Checkpoint.from_model("team/model"))
reveal_type(JobConfig(input="in", output="out").fetch_concurrency)
reveal_type(predict_sequential)
Checkpoint.from_dict(5)
"""

# Other people's packages take most of a minute to read, and nothing here is about them.
MYPY = """
[mypy]
follow_imports = skip
[mypy-job.*]
follow_imports = normal
"""


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    return install(tmp_path_factory.mktemp(request.param), editable=request.param == "editable")


def printed(*command: object, cwd: Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_has_every_file_of_the_package_and_no_other(tmp_path: Path) -> None:
    source = copy_source(tmp_path / "source")
    expected = {
        path.relative_to(source).as_posix() for path in source.rglob("job/**/*") if path.is_file()
    }
    pip("wheel", str(source), "--wheel-dir", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {"job/py.typed", "job/kernels/png.py", "job/demo/model/model.safetensors"} <= names


def test_the_package_is_found_from_any_directory(installed: Installed, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "import job\n"
        "from job import BatchPredictor, Checkpoint, Predictor\n"
        "model = Path(job.__file__).parent / 'demo' / 'model'\n"
        "print(job.__file__)\n"
        "print(sorted(Checkpoint.from_model(str(model)).to_dict()))\n"
    )
    (tmp_path / "elsewhere").mkdir()
    file, files = printed(installed.python, script, cwd=tmp_path / "elsewhere").splitlines()
    assert Path(file).is_relative_to(installed.source.parent)
    assert "model.safetensors" in files


def test_the_program_is_installed_with_it(installed: Installed, tmp_path: Path) -> None:
    program = installed.programs / "ray-batch-segmentation"
    said = printed(program, "--help", cwd=tmp_path)
    assert said == printed(installed.python, "-m", "job", "--help", cwd=tmp_path)
    assert re.search(r"^ +run +", said, re.MULTILINE)
    wrong = subprocess.run([program, "run", "--nope"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_type_checkers_see_the_types_of_what_is_exported(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "mypy.ini").write_text(MYPY)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", installed.python, "client.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(revealed) == 4, done.stdout
    assert "predictor_cls: type[job.predict.predictor.Predictor]" in revealed[0]
    assert revealed[1:3] == ["job.models.checkpoint.Checkpoint", "int"]
    assert "image_processor: Any" in revealed[3]
    (error,) = (line for line in done.stdout.splitlines() if ": error: " in line)
    assert 'expected "Mapping[str, Any]"' in error
