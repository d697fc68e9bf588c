"""The verbs: parse, call a public function, print; the only module that prints or exits."""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic.fields import FieldInfo

from job import config as configuration
from job.cluster.stopping import TOLD, StopSignal
from job.cluster.submission import refuse_lost_results, refuse_missing_input
from job.config import JobConfig
from job.console import say
from job.errors import ConfigError, JobError, StoppedError, StorageError
from job.redact import redact
from job.storage import notices

_PROGRAM = "python -m job"
_NAMED = 5  # images that failed, at the end of a run that is not good


class _Parser(argparse.ArgumentParser):
    def refuse(self, word: str) -> NoReturn:
        """Say that there is no such option or argument, and what is close to it."""
        if not word.startswith("-"):
            self.error(f"unexpected argument {word}")
        close = difflib.get_close_matches(word.split("=")[0], self._option_string_actions, 1)
        self.error(f"unknown option {word}" + (f" (did you mean {close[0]}?)" if close else ""))

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See {self.prog} --help")


class _Version(argparse.Action):
    """Says which version this is, and of what it leans on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from job.versions import in_a_line

        print(in_a_line())
        parser.exit()


def main(argv: Sequence[str] | None = None, stop: StopSignal | None = None) -> int:
    """Run one verb; returns the exit code.

    Args:
        argv: the command line, by default this process's.
        stop: tells when to stop.
    """
    stop = stop or StopSignal()
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        parser = _parser()
        if not words:
            parser.print_help()
            return 0
        arguments, unknown = parser.parse_known_args(words)
        if unknown:
            arguments.parser.refuse(unknown[0])
        arguments.stop = stop
        notices.tell_with(say)
        verb: Callable[[argparse.Namespace], int] = arguments.verb
        code = verb(arguments)
        stop.let_go()
        return code
    except JobError as error:
        stop.let_go()
        return _say_how_it_ended(error)
    except KeyboardInterrupt:
        stop.let_go()
        return _say_how_it_ended(StoppedError(TOLD))
    except Exception as error:
        stop.let_go()
        if stop.was_given:  # what became of the StoppedError on its way through other code
            return _say_how_it_ended(StoppedError(TOLD))
        from job.storage.location import REFUSALS, explain

        if not isinstance(error, REFUSALS):
            raise
        return _say_how_it_ended(StorageError(f"storage: {explain(error)}"))


def _say_how_it_ended(error: JobError) -> int:
    kind = "stopped" if isinstance(error, StoppedError) else "error"
    print(f"{kind}: {redact(str(error))}", file=sys.stderr)
    return error.exit_code


def _parser() -> _Parser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Images in object storage in, one segmentation map per image out, as Parquet.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show versions and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    run = verbs.add_parser(
        "run", help="segment every image that has no map yet", allow_abbrev=False
    )
    _add_job_options(run)
    run.set_defaults(verb=_run, parser=run)
    plan = verbs.add_parser(
        "plan", help="what a run would do: images, bytes, what is done", allow_abbrev=False
    )
    _add_job_options(plan)
    plan.set_defaults(verb=_plan, parser=plan)
    verify = verbs.add_parser(
        "verify", help="reconcile manifest, maps, errors and commits", allow_abbrev=False
    )
    verify.add_argument("output", metavar="OUTPUT", help="OUTPUT of a run")
    verify.add_argument(
        "--deep", action="store_true", help="decode every map as well, and check its size"
    )
    verify.add_argument(
        "--storage-options", default="{}", metavar="JSON", help="JSON object of options for fsspec"
    )
    verify.set_defaults(verb=_verify, parser=verify)
    evaluate = verbs.add_parser(
        "evaluate", help="mIoU and per-class IoU against annotations", allow_abbrev=False
    )
    evaluate.add_argument("output", metavar="OUTPUT", help="OUTPUT of a run")
    evaluate.add_argument(
        "--truth", required=True, metavar="URI", help="folder or prefix of annotation PNGs"
    )
    evaluate.add_argument(
        "--reduce-labels", action="store_true", help="annotations count from 1, 0 is unlabelled"
    )
    evaluate.add_argument(
        "--storage-options", default="{}", metavar="JSON", help="JSON object of options for fsspec"
    )
    evaluate.set_defaults(verb=_evaluate, parser=evaluate)
    _add_compare(verbs)
    demo = verbs.add_parser(
        "demo", help="all of it on generated scenes, offline, in a minute or two"
    )
    demo.add_argument("directory", metavar="DIR", nargs="?", default="demo-output")
    demo.set_defaults(verb=_demo, parser=demo)
    return parser


def _add_compare(verbs: Any) -> None:
    compare = verbs.add_parser(
        "compare",
        help="the architectures side by side: sequential, Ray tasks, Ray actors, BatchPredictor",
        allow_abbrev=False,
    )
    compare.add_argument("input", metavar="INPUT", help="folder or prefix of images")
    compare.add_argument(
        "--model", default=configuration.DEFAULT_MODEL, metavar="TEXT", help="as in run"
    )
    compare.add_argument(
        "--images", type=int, default=70, metavar="N", help="images to run over (default: 70)"
    )
    compare.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="times to run all of them, the medians count (default: 1)",
    )
    compare.add_argument(
        "--output",
        default="comparison",
        metavar="DIR",
        help="folder for comparison.json and comparison.png (default: comparison)",
    )
    compare.add_argument("--address", metavar="TEXT", help="as in run")
    compare.add_argument(
        "--storage-options", default="{}", metavar="JSON", help="JSON object of options for fsspec"
    )
    compare.set_defaults(verb=_compare, parser=compare)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file with options by their names")
    for name, field in JobConfig.model_fields.items():
        if name in ("input", "output"):
            parser.add_argument(name, metavar=name.upper(), help=field.description)
        elif field.annotation is bool:
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                dest=name,
                action="store_true",
                default=argparse.SUPPRESS,
                help=field.description,
            )
        elif name == "retry_errors":
            parser.add_argument(
                "--retry-errors",
                nargs="?",
                const="retryable",
                choices=("retryable", "all"),  # and no INPUT that stands behind it
                default=argparse.SUPPRESS,
                metavar="all",
                help=field.description,
            )
        else:
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                dest=name,
                default=argparse.SUPPRESS,
                metavar=_metavar(field),
                help=_help(field),
            )


def _metavar(field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "|".join(choices)
    kinds = {"int": "N", "float": "X", "dict": "JSON"}
    return next((short for kind, short in kinds.items() if kind in str(field.annotation)), "TEXT")


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    default = field.default
    if default is None or "default:" in text or isinstance(default, type(...)):
        return text
    return f"{text} (default: {default})" if not field.default_factory else text


def _job_config(arguments: argparse.Namespace) -> JobConfig:
    values = {
        name: value for name, value in vars(arguments).items() if name in JobConfig.model_fields
    }
    config = configuration.load({**_from_file(arguments.config), **values})
    refuse_lost_results("OUTPUT", config.output)
    refuse_missing_input(config.input)
    return config


def _from_file(path: str | None) -> dict[str, Any]:
    import yaml

    if path is None:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"--config {path}: expected options by their names, such as 'batch_size: 8'"
        )
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def _run(arguments: argparse.Namespace) -> int:
    config = _job_config(arguments)
    from job import pipeline
    from job.cli import text
    from job.storage import parquet
    from job.storage.location import locate

    arguments.stop.hold()
    receipt = pipeline.run(config, say, arguments.stop)
    print(text.of_run(receipt, config.output))
    if text.is_good(receipt, config.max_error_rate):
        return 0
    output = locate(config.output, config.storage_options, config.retry_policy)
    first = parquet.first_errors(output, receipt.run_id, _NAMED)
    say(f"error: {text.of_failure(receipt, config.output, config.max_error_rate, first)}")
    return 1


def _plan(arguments: argparse.Namespace) -> int:
    config = _job_config(arguments)
    from job import planning
    from job.cli import text

    print(text.of_plan(planning.plan(config)))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from job.cli import text
    from job.results import verification
    from job.storage.location import locate

    options = configuration.parse_storage_options(arguments.storage_options)
    verdict = verification.verify(locate(arguments.output, options), deep=arguments.deep)
    print(text.of_verdict(verdict))
    return 0 if verdict.is_complete else 1


def _evaluate(arguments: argparse.Namespace) -> int:
    from job.cli import text
    from job.results import evaluation
    from job.storage.location import locate

    options = configuration.parse_storage_options(arguments.storage_options)
    scores = evaluation.evaluate(
        locate(arguments.output, options),
        arguments.truth,
        options,
        reduce_labels=arguments.reduce_labels,
    )
    print(text.of_scores(scores))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    refuse_lost_results("DIR", arguments.directory)
    from job.cli import text
    from job.demo.showcase import show

    arguments.stop.hold()
    result = show(Path(arguments.directory).absolute(), say)
    print(text.of_run(result.receipt, str(result.picture.parent / "output")))
    print(text.of_scores(result.scores))
    print(f"  picture {result.picture}")
    return 0 if text.is_good(result.receipt, 0.0) else 1


def _compare(arguments: argparse.Namespace) -> int:
    import json

    from job.prepare import check_folder

    refuse_lost_results("--output", arguments.output)
    if "://" in arguments.output:
        raise ConfigError(f"--output {arguments.output}: expected a local folder")
    check_folder(f"--output {arguments.output}", arguments.output)
    from job.cli import text
    from job.compare import comparison
    from job.compare.chart import draw

    arguments.stop.hold()
    result = comparison.compare(
        arguments.input,
        arguments.model,
        images=arguments.images,
        options=configuration.parse_storage_options(arguments.storage_options),
        rounds=arguments.rounds,
        address=arguments.address,
        say=say,
    )
    place = Path(arguments.output)
    place.mkdir(parents=True, exist_ok=True)
    (place / "comparison.json").write_text(json.dumps(result.as_dict(), ensure_ascii=False))
    draw(result, place / "comparison.png")
    print(text.of_comparison(result))
    print(f"  chart   {place / 'comparison.png'}")
    print(f"  numbers {place / 'comparison.json'}")
    return 0
