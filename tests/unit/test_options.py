"""Options: what JobConfig has is what the command line takes and what docs/options.md tells of."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs import options as documentation
from job.cli import options
from job.config import JobConfig, flag
from job.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")


def cells(row: str) -> list[str]:
    """Those of a row of a Markdown table, with no escapes."""
    parts = row.replace("\\|", "\0").strip("| ").split("|")
    return [part.strip().replace("\0", "|") for part in parts]


@pytest.mark.parametrize("name", JobConfig.model_fields)
def test_every_option_stands_in_the_documentation_with_its_default_and_meaning(name: str) -> None:
    field = JobConfig.model_fields[name]
    rows = [cells(line) for line in PAGE.splitlines() if line.startswith("| `")]
    ((_, default, meaning),) = [row for row in rows if row[0].strip("`").split()[0] == flag(name)]
    assert meaning == field.description
    has_default = not (
        field.is_required() or field.default in (None, False) or field.default_factory
    )
    assert default == (f"`{field.default}`" if has_default else "")


def test_the_documentation_is_up_to_date() -> None:
    assert documentation.page() == PAGE, "run: python -m docs.options"


def test_documentation_that_is_out_of_date_is_found_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(documentation, "PAGE", tmp_path / "options.md")
    assert documentation.main(["--check"]) == 1
    assert "Run: python -m docs.options" in capsys.readouterr().err
    assert documentation.main([]) == 0
    assert documentation.main(["--check"]) == 0
    (tmp_path / "options.md").write_text(PAGE.replace("`--workers N`", "`--worker N`"))
    assert documentation.main(["--check"]) == 1
    assert documentation.main(["--chek"]) == 2


def test_the_check_runs_from_the_top_of_the_repository() -> None:
    command = [sys.executable, "-m", "docs.options", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_words_of_the_command_line_go_before_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump({"input": "x", "batch-size": 8, "image_timeout": 9}))
    words = ["run", "in", "out", "--config", str(file), "--batch-size", "4", "--retry-errors"]
    config = options.job_config(options.parse(words))
    assert (config.input, config.batch_size, config.image_timeout) == ("in", 4, 9)
    assert config.retry_errors == "retryable"


def test_an_option_that_is_not_given_is_left_to_the_config() -> None:
    assert options.job_config(options.parse(["run", "in", "out"])) == JobConfig(
        input="in", output="out"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["run", "in", "out", "--batch-sise", "4"],
            r"--batch-sise \(did you mean --batch-size\?\)",
        ),
        (["run", "in", "out", "more"], "unexpected argument more"),
        (["run", "in"], "required: OUTPUT. See python -m job run --help"),
        (["run", "in", "out", "--batch", "4"], "unknown option --batch"),
        (["walk"], "invalid choice: 'walk'"),
    ],
)
def test_what_no_verb_takes_is_refused_with_the_way_to_its_help(
    words: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        options.parse(words)
    assert str(caught.value).endswith("--help")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("input", "INPUT"),
        ("model", "--model TEXT"),
        ("revision", "--revision TEXT"),
        ("storage_options", "--storage-options JSON"),
        ("decode", "--decode exact|reduced"),
        ("reference", "--reference"),
        ("retry_errors", "--retry-errors [all]"),
        ("gpus_per_worker", "--gpus-per-worker X"),
        ("batch_size", "--batch-size N"),
    ],
)
def test_an_option_is_written_with_what_it_takes(name: str, written: str) -> None:
    assert options.usage(name) == written
