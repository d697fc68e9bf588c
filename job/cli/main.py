"""The verbs: parse, call a public function, print; the only module that prints or exits."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from job.cli import options
from job.cluster.stopping import TOLD, StopSignal
from job.cluster.submission import refuse_lost_results, refuse_missing_input
from job.config import JobConfig, parse_storage_options
from job.console import say
from job.errors import ConfigError, JobError, StoppedError, StorageError
from job.redact import redact

_NAMED = 5  # images that failed, at the end of a run that is not good


def main(argv: Sequence[str] | None = None, stop: StopSignal | None = None) -> int:
    """Run one verb; returns the exit code.

    Args:
        argv: the command line, by default this process's.
        stop: tells when to stop.
    """
    stop = stop or StopSignal()
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        if not words:
            options.print_help()
            return 0
        arguments = options.parse(words)
        from job.storage import notices

        arguments.stop = stop
        notices.tell_with(say)
        code = _VERBS[arguments.verb](arguments)
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
        from job.storage.refusals import REFUSALS, explain

        if not isinstance(error, REFUSALS):
            raise
        return _say_how_it_ended(StorageError(f"storage: {explain(error)}"))


def _say_how_it_ended(error: JobError) -> int:
    kind = "stopped" if isinstance(error, StoppedError) else "error"
    print(f"{kind}: {redact(str(error))}", file=sys.stderr)
    return error.exit_code


def _config_of_run(arguments: argparse.Namespace) -> JobConfig:
    config = options.job_config(arguments)
    refuse_lost_results("OUTPUT", config.output)
    refuse_missing_input(config.input)
    return config


def _run(arguments: argparse.Namespace) -> int:
    config = _config_of_run(arguments)
    from job import pipeline
    from job.cli import text
    from job.outputs import error_rows
    from job.storage.opening import locate

    arguments.stop.hold()
    receipt = pipeline.run(config, say, arguments.stop)
    print(text.of_run(receipt, config.output))
    if receipt.is_good(config.max_error_rate):
        return 0
    output = locate(config.output, config.storage_options, config.retry_policy)
    first = error_rows.first_errors(output, receipt.run_id, _NAMED)
    say(f"error: {text.of_failure(receipt, config.output, config.max_error_rate, first)}")
    return 1


def _plan(arguments: argparse.Namespace) -> int:
    config = _config_of_run(arguments)
    from job import planning
    from job.cli import text

    print(text.of_plan(planning.plan(config)))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from job.cli import text
    from job.results import verification
    from job.storage.opening import locate

    storage_options = parse_storage_options(arguments.storage_options)
    verdict = verification.verify(locate(arguments.output, storage_options), deep=arguments.deep)
    print(text.of_verdict(verdict))
    return 0 if verdict.is_complete else 1


def _evaluate(arguments: argparse.Namespace) -> int:
    from job.cli import text
    from job.results import evaluation
    from job.storage.opening import locate

    storage_options = parse_storage_options(arguments.storage_options)
    scores = evaluation.evaluate(
        locate(arguments.output, storage_options),
        arguments.truth,
        storage_options,
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
    return 0 if result.receipt.is_good(max_error_rate=0.0) else 1


def _compare(arguments: argparse.Namespace) -> int:
    import json

    refuse_lost_results("--output", arguments.output)
    _check_local_folder("--output", arguments.output)
    storage_options = parse_storage_options(arguments.storage_options)
    from job.cli import text
    from job.compare import comparison
    from job.compare.chart import draw

    arguments.stop.hold()
    result = comparison.compare(
        arguments.input,
        arguments.model,
        images=arguments.images,
        options=storage_options,
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


def _check_local_folder(option: str, path: str) -> None:
    """Look whether a local folder could be written, or made; makes nothing."""
    from job.storage import local

    if "://" in path:
        raise ConfigError(f"{option} {path}: expected a local folder")
    obstacle = local.obstacle(path)
    if obstacle:
        raise StorageError(f"{option} {path} cannot be written: {obstacle}")


_VERBS = {
    "run": _run,
    "plan": _plan,
    "verify": _verify,
    "evaluate": _evaluate,
    "compare": _compare,
    "demo": _demo,
}
