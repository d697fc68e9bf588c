"""Whatever is wrong with what a user gives: one sentence with the remedy, and the right exit code.

Most of it is refused before Ray starts, and runs in this process.
"""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.cli.main import main
from tests.conftest import S3, write_pictures
from tests.end_to_end.hub import COMMIT, Quiet, fake_hub
from tests.end_to_end.processes import finish, free_ports
from tests.outputs import check_each_image_once, rows
from tests.servers import serving

CONFIG, STORAGE, MODEL = 2, 3, 4
Refuses = Callable[..., str]


@pytest.fixture
def cli() -> Iterator[Callable[..., int]]:
    """The command line, in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *words: main([str(word) for word in words])
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def refuses(cli: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> Refuses:
    """Runs the job, checks that it ends with one plain sentence, and returns that."""

    def run(exit_code: int, *words: object) -> str:
        capfd.readouterr()
        ended_with = cli("run", *words)
        stdout, stderr = capfd.readouterr()
        assert ended_with == exit_code, stderr
        return sentence(stdout, stderr)

    return run


def sentence(stdout: str, stderr: str) -> str:
    """The one line of a refusal, without its prefix."""
    assert stdout == ""
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("error: ")
    assert "Traceback" not in stderr
    return stderr.removeprefix("error: ").strip()


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--batchsize", "8"], "unknown option --batchsize (did you mean --batch-size?)"),
        (["--quux"], "unknown option --quux. See python -m job run --help"),
        (["--retry-errors", "photos"], "argument --retry-errors: invalid choice: 'photos'"),
        (["--storage-options", "{key: 1}"], "--storage-options: not valid JSON"),
        (["--storage-options", "[1]"], "--storage-options: Input should be"),
        (["--batch-size", "many"], "--batch-size 'many': Input should be a valid integer"),
        (["--batch-size", "0"], "--batch-size '0': Input should be greater than or equal to 1"),
        (["--workers", "1.5"], "--workers '1.5': Input should be a valid integer"),
        (["--max-error-rate", "2"], "--max-error-rate '2': Input should be less than or equal"),
        (["--progress", "loud"], "--progress 'loud': Input should be 'auto', 'bar', 'lines'"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: "),
    ],
)
def test_option_that_makes_no_sense_is_refused(
    refuses: Refuses, pictures: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    assert says in refuses(CONFIG, pictures, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_malformed_storage_options_are_not_repeated(
    refuses: Refuses, pictures: Path, tmp_path: Path
) -> None:
    options = '{"key": "AKIA", "secret": "hidden"'
    said = refuses(CONFIG, pictures, tmp_path / "out", "--storage-options", options)
    assert "expected an object such as" in said
    assert "hidden" not in said


def test_missing_output_is_refused(refuses: Refuses, pictures: Path) -> None:
    assert "arguments are required: OUTPUT" in refuses(CONFIG, pictures)


# INPUT


def test_prefix_that_does_not_exist_is_refused(
    refuses: Refuses, s3: S3, model_dir: Path, tmp_path: Path
) -> None:
    for source in (tmp_path / "nowhere", "s3://bucket/nowhere", "s3://bucket/no/where/*.jpg"):
        said = refuses(STORAGE, source, tmp_path / "out", "--model", model_dir)
        assert said.startswith(f"INPUT {source}: nothing is there. Check the spelling")
    assert not (tmp_path / "out").exists()


def test_bucket_that_does_not_exist_is_refused(
    refuses: Refuses, s3: S3, model_dir: Path, pictures: Path, tmp_path: Path
) -> None:
    said = refuses(STORAGE, "s3://no-such/in", tmp_path / "out", "--model", model_dir)
    assert "INPUT s3://no-such/in" in said
    said = refuses(STORAGE, pictures, "s3://no-such/out", "--model", model_dir)
    assert said.startswith("OUTPUT s3://no-such/out cannot be written: ")
    assert "bucket does not exist" in said


def test_input_without_images_is_refused(refuses: Refuses, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("no picture")
    said = refuses(STORAGE, tmp_path / "in", tmp_path / "out", "--model", model_dir)
    assert "Left out: 1 object without an image's name (readme.txt)" in said
    assert "Give a glob" in said


def test_scheme_that_nobody_knows_is_refused(
    refuses: Refuses, model_dir: Path, tmp_path: Path
) -> None:
    said = refuses(CONFIG, "s4://bucket/in", tmp_path / "out", "--model", model_dir)
    assert "s4://bucket/in" in said
    assert "Use a local path, s3://" in said


class _Forbidden(Quiet):
    """An S3 endpoint that lets nobody in."""

    def do_GET(self) -> None:  # noqa: N802
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.answer(403, body, Content_Type="application/xml")

    def do_PUT(self) -> None:  # noqa: N802
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()


def test_storage_that_denies_permission_is_named_with_the_remedy(
    refuses: Refuses, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    with serving(_Forbidden) as endpoint:
        keys = {"endpoint_url": endpoint, "key": "k", "secret": "hidden"}
        options = ["--model", model_dir, "--storage-options", json.dumps(keys)]
        said = refuses(STORAGE, "s3://bucket/in", tmp_path / "out", *options)
        assert said.startswith("INPUT s3://bucket/in cannot be listed: permission denied")
        assert "Check the credentials and the bucket's policy" in said
        said = refuses(STORAGE, "s3://bucket/in", "s3://bucket/out", *options)
        assert "OUTPUT s3://bucket/out" in said
        assert "permission denied" in said
        assert "hidden" not in said


def test_missing_credentials_are_named_with_the_remedy(
    refuses: Refuses,
    s3: S3,
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    options = ["--storage-options", json.dumps({"endpoint_url": s3.endpoint, "max_concurrency": 7})]
    said = refuses(STORAGE, "s3://bucket/in", tmp_path / "out", "--model", model_dir, *options)
    assert "no AWS credentials were found. Set AWS_PROFILE" in said


def test_endpoint_that_does_not_answer_is_named_with_the_remedy(
    refuses: Refuses, model_dir: Path, tmp_path: Path
) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)}"
    once = {"retries": {"max_attempts": 0}}
    keys = {"endpoint_url": nobody, "key": "k", "secret": "s", "config_kwargs": once}
    options = ["--model", model_dir, "--storage-options", json.dumps(keys)]
    said = refuses(STORAGE, "s3://bucket/in", tmp_path / "out", *options)
    assert said.startswith("INPUT s3://bucket/in cannot be listed: the endpoint does not answer")
    assert nobody in said
    assert "Check AWS_ENDPOINT_URL and the network" in said


# OUTPUT


def test_output_inside_input_is_refused(
    refuses: Refuses, s3: S3, pictures: Path, model_dir: Path
) -> None:
    places = [(pictures, pictures / "out"), ("s3://bucket/in", "s3://bucket/in/out")]
    for source, output in places:
        said = refuses(CONFIG, source, output, "--model", model_dir)
        assert f"OUTPUT {output} is inside INPUT {source}" in said
        assert "Put OUTPUT beside INPUT" in said
    assert not (pictures / "out").exists()


def test_output_with_a_file_in_the_way_is_refused(
    refuses: Refuses, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        said = refuses(STORAGE, pictures, output, "--model", model_dir)
        assert said.startswith(f"OUTPUT {output} cannot be written: ")
    assert (tmp_path / "file").read_text() == "in the way"


# Models


def test_model_directory_that_is_not_there_is_refused(
    refuses: Refuses, pictures: Path, tmp_path: Path
) -> None:
    said = refuses(MODEL, pictures, tmp_path / "out", "--model", tmp_path / "none")
    assert f"--model {tmp_path / 'none'}: no such directory. Give a directory" in said


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("config.json", "no config.json there; expected a model in the Hub's format"),
        ("preprocessor_config.json", "save its image processor beside it"),
        ("model.safetensors", "pickled weights are not loaded. Convert them with"),
    ],
)
def test_model_without_one_of_its_files_is_refused(
    refuses: Refuses, pictures: Path, model_dir: Path, tmp_path: Path, missing: str, says: str
) -> None:
    model = shutil.copytree(model_dir, tmp_path / "model")
    (model / missing).unlink()
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    assert says in refuses(MODEL, pictures, tmp_path / "out", "--model", model)


def test_model_on_s3_that_is_not_there_is_refused(
    refuses: Refuses, s3: S3, pictures: Path, tmp_path: Path
) -> None:
    said = refuses(MODEL, pictures, tmp_path / "out", "--model", "s3://bucket/no-model")
    assert said.startswith("--model s3://bucket/no-model: there is no config.json")


def test_model_that_classifies_whole_images_is_refused(
    refuses: Refuses, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    from transformers import SegformerConfig, SegformerForImageClassification

    model = shutil.copytree(model_dir, tmp_path / "model")
    small = SegformerConfig(depths=[1] * 4, hidden_sizes=[8, 16, 24, 32])
    SegformerForImageClassification(small).save_pretrained(model)
    said = refuses(MODEL, pictures, tmp_path / "out", "--model", model)
    assert str(model) in said
    assert "SegformerForImageClassification" in said
    assert "segmentation" in said


def test_model_of_another_kind_is_refused(
    refuses: Refuses, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(model_dir, tmp_path / "model")
    (model / "config.json").write_text(json.dumps({"model_type": "bert"}))
    said = refuses(MODEL, pictures, tmp_path / "out", "--model", model)
    assert str(model) in said
    assert "segmentation" in said


def test_revision_of_a_directory_is_refused(
    refuses: Refuses, pictures: Path, model_dir: Path, tmp_path: Path
) -> None:
    words = ["--model", model_dir, "--revision", "v1"]
    assert "Leave it out" in refuses(MODEL, pictures, tmp_path / "out", *words)


# The Hub

# Its address is read when its client is imported, so that each address needs a process.
SCRIPT = """
import contextlib, io, json, sys
from job.cli.main import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        code = main(words)
    print(json.dumps([code, stderr.getvalue()]))
"""


def refusals(env: dict[str, str], tmp_path: Path, *models: list[str]) -> list[str]:
    """What one process says to runs that each ask for a model."""
    commands = [["run", "in", str(tmp_path / "out"), "--model", *model] for model in models]
    cache = {"HF_HOME": str(tmp_path / "cache")}
    finished = finish([sys.executable, "-c", SCRIPT, json.dumps(commands)], {**cache, **env})
    assert finished.exit_code == 0, finished.stderr
    ended = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [code for code, _ in ended] == [MODEL] * len(models)
    assert finished.stderr == ""
    return [sentence("", stderr) for _, stderr in ended]


def test_hub_that_refuses_is_understood(model_dir: Path, tmp_path: Path) -> None:
    with fake_hub(model_dir) as endpoint:
        missing, private, gated, busy, revision = refusals(
            {"HF_ENDPOINT": endpoint},
            tmp_path,
            ["team/missing"],
            ["team/private"],
            ["team/gated"],
            ["team/busy"],
            ["team/model", "--revision", "v2"],
        )
    assert "team/missing: the Hub has no such model, or it is private. Check" in missing
    assert "set HF_TOKEN" in private
    assert "team/gated is gated. Ask for access on the Hub, then set HF_TOKEN" in gated
    assert "team/busy: the Hugging Face Hub cannot be reached" in busy
    assert "--revision v2: the model team/model has no such branch, tag or commit" in revision


def test_hub_that_does_not_answer_is_named_with_the_ways_out(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)}"
    for env in ({"HF_ENDPOINT": nobody}, {"HF_HUB_OFFLINE": "1"}):
        (said,) = refusals(env, tmp_path, ["team/model"])
        assert "the Hugging Face Hub cannot be reached" in said
        assert "Give a local directory or an s3:// URI with --model" in said
        assert "HF_HUB_OFFLINE=1" in said


def test_model_of_the_hub_runs_pinned_to_its_commit_and_later_offline(
    model_dir: Path, tmp_path: Path
) -> None:
    source, output = write_pictures(tmp_path / "in", 3), tmp_path / "out"
    words = [sys.executable, "-m", "job", "run", str(source), str(output)]
    words += ["--model", "team/model", "--revision", "v1", "--workers=1"]
    cache = {"HF_HOME": str(tmp_path / "cache")}
    with fake_hub(model_dir) as endpoint:
        online = finish(words, {**cache, "HF_ENDPOINT": endpoint})
    assert online.exit_code == 0, online.stderr
    assert f"Checkpoint(team/model@{COMMIT[:12]})" in online.stderr
    check_each_image_once(output, 3)
    (receipt,) = (output / "runs").iterdir()
    model = json.loads(receipt.read_text())["model"]
    assert (model["name"], model["revision"]) == ("team/model", COMMIT)
    offline = finish(words, {**cache, "HF_HUB_OFFLINE": "1"})
    assert offline.exit_code == 0, offline.stderr
    assert offline.stdout.startswith("Nothing to do: all 3 images")
    assert offline.stderr == ""


# Images


@pytest.mark.usefixtures("ray_session")
def test_max_error_rate_decides_whether_failed_images_fail_the_run(
    cli: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
    model_dir: Path,
    tmp_path: Path,
) -> None:
    source = write_pictures(tmp_path / "in", 9)
    (source / "zero.jpg").write_bytes(b"")
    words = ["run", source, tmp_path / "strict", "--model", model_dir]
    assert cli(*words) == 1
    stdout, stderr = capfd.readouterr()
    assert "9 maps of 10 images" in stdout
    assert "errors  1: 1 empty" in stdout
    assert "Traceback" not in stderr
    why, first, where = stderr.splitlines()[-3:]
    assert why == "error: 1 of 10 images failed (10 %), more than --max-error-rate 1 %"
    assert first.startswith(f"  {source / 'zero.jpg'}: ")
    assert where == f"  all of them: {tmp_path / 'strict'}/errors/"
    check_each_image_once(tmp_path / "strict", 10)
    (row,) = rows(tmp_path / "strict", "errors")
    assert row["error_type"] == "empty"
    words[2] = tmp_path / "lenient"
    assert cli(*words, "--max-error-rate", "0.1") == 0
