"""Options: the parser of the command line, and how the fields of JobConfig become its flags."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic.fields import FieldInfo

from job.config import DEFAULT_MODEL, JobConfig, flag, load
from job.errors import ConfigError

_PROGRAM = "python -m job"
# What a value of each type is called; text is TEXT.
_METAVARS = {int: "N", float: "X", dict: "JSON"}


class _Parser(argparse.ArgumentParser):
    def refuse(self, word: str) -> NoReturn:
        """Say that there is no such option or argument, and what is close to it."""
        if not word.startswith("-"):
            self.error(f"unexpected argument {word}")
        import difflib

        close = difflib.get_close_matches(word.split("=")[0], self._option_string_actions, 1)
        self.error(f"unknown option {word}" + (f" (did you mean {close[0]}?)" if close else ""))

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See {self.prog} --help")


class _Version(argparse.Action):
    """Says which version this is, and the versions of what it is built on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from job.versions import in_a_line

        print(in_a_line())
        parser.exit()


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of one verb, whose name is ``verb``.

    Raises:
        ConfigError: a verb or an option is unknown, or an argument is missing.
        SystemExit: ``--help`` or ``--version`` has been answered.
    """
    arguments, unknown = _parser().parse_known_args(words)
    if unknown:
        arguments.parser.refuse(unknown[0])
    return arguments


def print_help() -> None:
    """What ``--help`` prints."""
    _parser().print_help()


def job_config(arguments: argparse.Namespace) -> JobConfig:
    """The config of a run: the options of ``--config``, then those of the command line.

    Raises:
        ConfigError: an option or the file is wrong.
    """
    given = {
        name: value for name, value in vars(arguments).items() if name in JobConfig.model_fields
    }
    return load({**_from_file(arguments.config), **given})


def usage(name: str) -> str:
    """A field of JobConfig as it is written on the command line: ``--batch-size N``."""
    field = JobConfig.model_fields[name]
    if field.is_required() or field.annotation is bool:
        return flag(name)
    return f"{flag(name)} {'[all]' if name == 'retry_errors' else _metavar(field)}"


def default(name: str) -> str:
    """The default of a field of JobConfig; empty for none, and for an option without a value."""
    field = JobConfig.model_fields[name]
    if field.is_required() or field.default_factory or field.default is None:
        return ""
    return "" if field.annotation is bool else str(field.default)


def _parser() -> _Parser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Images in object storage in, one segmentation map per image out, as Parquet.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show versions and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, text, add_arguments in (
        ("run", "segment every image that has no map yet", _add_job_options),
        ("plan", "what a run would do: images, bytes, what is done", _add_job_options),
        ("verify", "reconcile manifest, maps, errors and commits", _add_verify_options),
        ("evaluate", "mIoU and per-class IoU against annotations", _add_evaluate_options),
        (
            "compare",
            "the architectures side by side: sequential, Ray tasks, Ray actors, BatchPredictor",
            _add_compare_options,
        ),
        ("demo", "all of it on generated scenes, offline, in a minute or two", _add_demo_options),
    ):
        verb = verbs.add_parser(name, help=text, allow_abbrev=False)
        add_arguments(verb)
        verb.set_defaults(verb=name, parser=verb)
    return parser


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file with options by their names")
    for name, field in JobConfig.model_fields.items():
        if field.is_required():
            parser.add_argument(name, metavar=flag(name), help=_help(name))
        elif field.annotation is bool:
            _add(parser, name, action="store_true")
        elif name == "retry_errors":
            # The choices keep it from taking an INPUT that stands behind it.
            choices = ("retryable", "all")
            _add(parser, name, nargs="?", const="retryable", choices=choices, metavar="all")
        else:
            _add(parser, name, metavar=_metavar(field))


def _add(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    # What is not given is left to the file, then to JobConfig.
    parser.add_argument(
        flag(name), dest=name, default=argparse.SUPPRESS, help=_help(name), **settings
    )


def _add_verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="OUTPUT of a run")
    parser.add_argument(
        "--deep", action="store_true", help="decode every map as well, and compare it with its row"
    )
    _add_storage_options(parser)


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="OUTPUT of a run")
    parser.add_argument(
        "--truth", required=True, metavar="URI", help="folder or prefix of annotation PNGs"
    )
    parser.add_argument(
        "--reduce-labels", action="store_true", help="annotations count from 1, 0 is unlabelled"
    )
    _add_storage_options(parser)


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", help="folder or prefix of images")
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="TEXT", help="as in run")
    parser.add_argument(
        "--images", type=int, default=70, metavar="N", help="images to run over (default: 70)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="times to run all of them, the medians count (default: 1)",
    )
    parser.add_argument(
        "--output",
        default="comparison",
        metavar="DIR",
        help="folder for comparison.json and comparison.png (default: comparison)",
    )
    parser.add_argument("--address", metavar="TEXT", help="as in run")
    _add_storage_options(parser)


def _add_demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", nargs="?", default="demo-output")


def _add_storage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage-options", default="{}", metavar="JSON", help="JSON object of options for fsspec"
    )


def _metavar(field: FieldInfo) -> str:
    """What stands for a value of the field: ``N``, ``exact|reduced``."""
    kinds = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        return "|".join(kinds)
    kinds = (get_origin(field.annotation) or field.annotation, *kinds)
    return next((short for kind, short in _METAVARS.items() if kind in kinds), "TEXT")


def _help(name: str) -> str:
    text = (JobConfig.model_fields[name].description or "").replace("%", "%%")
    says_it = not default(name) or "default:" in text
    return text if says_it else f"{text} (default: {default(name)})"


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"--config {path}: expected options by their names, such as 'batch_size: 8'"
        )
    return {str(key).replace("-", "_"): value for key, value in values.items()}
