"""Text: what a verb has found or done, as the lines that it prints."""

import math
from typing import TYPE_CHECKING

from job.outputs.receipts import PREDICTING, Receipt
from job.redact import redact
from job.wording import counted, duration

if TYPE_CHECKING:
    from job.cluster.resources import Cluster
    from job.compare.comparison import Comparison
    from job.inputs.manifest import Manifest
    from job.planning import Plan
    from job.results.evaluation import Scores
    from job.results.verification import Verdict


def of_run(receipt: Receipt, output: str) -> str:
    """What a run has done, and where it is."""
    if receipt.remaining == 0:
        return (
            f"Nothing to do: {_all_images(receipt.images)} a map or an error row already."
            f"\n  output  {output}"
        )
    lines = [
        f"{counted(receipt.maps, 'map')} of {counted(receipt.remaining, 'image')} in"
        f" {duration(receipt.seconds)}",
        f"  speed   {_speed(receipt)}",
    ]
    if receipt.done_before:
        were = "was" if receipt.done_before == 1 else "were"
        lines.append(f"  before  {counted(receipt.done_before, 'image')} {were} done already")
    if receipt.errors:
        kinds = sorted(receipt.errors.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds)
        lines.append(f"  errors  {receipt.failed:,}: {listed}")
    else:
        lines.append("  errors  none")
    if receipt.retries:
        lines.append(f"  retried {counted(receipt.retries, 'request')} to storage")
    if receipt.steady:  # shares of less than a few seconds mean little
        lines.append(f"  busy    {_busy(receipt)}")
    place = output.rstrip("/")
    lines += [f"  maps    {place}/maps/", f"  receipt {place}/runs/{receipt.run_id}.json"]
    return "\n".join(lines)


def _all_images(count: int) -> str:
    return "the image has" if count == 1 else f"all {count:,} images have"


def _speed(receipt: Receipt) -> str:
    """The rate with the time until the first maps, and the one that many images come close to."""
    overall = f"{receipt.images_per_second:.1f} images/s"
    first = f"{duration(receipt.first_map)} until the first maps"
    if receipt.steady:
        return f"{receipt.steady:.1f} images/s once under way; {overall} with the {first}"
    if receipt.first_map:
        return f"{overall} with the {first}; too few images to tell what many would reach"
    return overall


def _busy(receipt: Receipt) -> str:
    """Who was at work for what share of the time: the fullest is what a run waits for."""
    busy = {stage: figures["busy"] for stage, figures in receipt.stages.items()}
    predicting = sum(busy.get(stage, 0.0) for stage in PREDICTING)
    loading = busy.get("decode", 0.0)
    if not receipt.allotment.get("load_cpus"):  # predictors load and encode as well
        shares = {"loading": loading, "predicting": predicting, "encoding": busy.get("encode", 0.0)}
        each = ", ".join(f"{share:.0%} {stage}" for stage, share in shares.items())
        return f"predictors {min(sum(shares.values()), 1):.0%} of the time: {each}"
    rest = busy.get("encode", 0.0) + busy.get("write", 0.0)
    return (
        f"predictors {min(predicting, 1):.0%} of the time, CPUs {loading:.0%} with decoding and"
        f" {rest:.0%} with encoding and writing"
    )


def of_failure(
    receipt: Receipt, output: str, max_error_rate: float, first: list[tuple[str, str]]
) -> str:
    """Why a run is not good: which option decided, the first images, and where all of them are.

    Args:
        receipt: of the run.
        output: where it has written.
        max_error_rate: the option.
        first: URI and reason of the first images that failed.
    """
    place = output.rstrip("/")
    share, limit = receipt.failed / receipt.remaining, max_error_rate
    lines = [
        f"{receipt.failed:,} of {counted(receipt.remaining, 'image')} failed ({_percent(share)}),"
        f" more than --max-error-rate {_percent(limit)}"
    ]
    lines += [f"  {uri}: {reason}" for uri, reason in first]
    if receipt.failed > len(first):
        lines.append(f"  and {receipt.failed - len(first):,} more")
    lines.append(f"  all of them: {place}/errors/")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def of_plan(plan: "Plan") -> str:
    """What a run would do."""
    images, labels = plan.images, len(plan.model.labels)
    lines = [
        f"{counted(plan.remaining, 'image')} to do: {images.images:,} listed ({_size(images)}),"
        f" {plan.done:,} done",
        f"  model     {plan.model.origin.name}, {counted(labels, 'class', 'classes')}",
        f"  cluster   {_cluster(plan.cluster)}",
        f"  resources {plan.resources}",
    ]
    if images.left_out.total:
        lines.insert(1, f"  left out  {images.left_out}")
    return "\n".join(lines)


def _size(images: "Manifest") -> str:
    """How large the images are together, as far as their storage tells."""
    if images.size is None:
        return "of unknown size"
    size = f"{images.size / 1e9:.1f} GB" if images.size >= 1e9 else f"{images.size / 1e6:.1f} MB"
    if images.unknown_sizes:
        return f"{size}, and {images.unknown_sizes:,} of unknown size"
    return size


def _cluster(cluster: "Cluster") -> str:
    """What a cluster has, and may grow to."""
    from job.cluster.resources import describe_request

    nodes = len(cluster.nodes)
    now = (
        describe_request(cluster.cpus, cluster.gpus) if nodes else "no node that takes tasks is up"
    )
    if nodes:
        now += f" on {counted(nodes, 'node')}"
    if cluster.growth is None:
        return f"{now}; what it may grow to is not known here"
    kinds = [
        f"{kind.most:,} with {describe_request(kind.cpus, kind.gpus)}" for kind in cluster.types
    ]
    if not kinds:
        return now
    most = counted(cluster.growth.most_nodes, "node")
    return f"{now}; may grow to {most}: at most {', '.join(kinds)}"


def of_scores(scores: "Scores") -> str:
    """How good maps are: the two figures, then a line for each class."""
    lines = [
        f"pixel accuracy {scores.pixel_accuracy:.4f}, mIoU {scores.mean_iou:.4f}"
        f" over {counted(scores.images, 'image')}"
    ]
    if scores.without_truth:
        have = "has" if scores.without_truth == 1 else "have"
        lines.append(f"  {counted(scores.without_truth, 'map')} {have} no annotation")
    if scores.accuracy_if_shifted > scores.pixel_accuracy:
        start, option = ("0", "without") if scores.reduced else ("1", "with")
        lines.append(
            f"  do the annotations count from {start}? {option} --reduce-labels the pixel accuracy"
            f" would be {scores.accuracy_if_shifted:.4f}"
        )
    names = [redact(name) for name in scores.names]
    width = max(map(len, names))
    lines += [
        f"  {name:<{width}}  {value:.4f}"
        for name, value in zip(names, scores.iou, strict=True)
        if math.isfinite(value)
    ]
    return "\n".join(lines)


def of_comparison(comparison: "Comparison") -> str:
    """The architectures as a table, speed-up over the notebook's BatchPredictor.

    A rate that is no steady state carries a question mark, and a line below says why.
    """
    from job.compare.comparison import BASELINE

    rows = [("", "images/s", "first map", "peak memory", "equal pixels", "speed-up")]
    for timing in comparison.timings:
        rows.append(
            (
                timing.name,
                f"{timing.steady:.2f}" if timing.settled else f"{timing.steady:.2f}?",
                f"{timing.first_map:.1f} s",
                f"{timing.peak_memory / 2**30:.1f} GiB",
                f"{100 * timing.agreement:.4f} %",
                f"{comparison.speedup(timing.name, BASELINE):.1f}×",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )
    if all(timing.settled for timing in comparison.timings):
        return table
    return (
        f"{table}\n? {counted(comparison.images, 'image')}"
        f" {'is' if comparison.images == 1 else 'are'} too few for a steady state: start-up counts"
        " in the rates and speed-ups of these. Give --images a larger number"
    )


def of_verdict(verdict: "Verdict") -> str:
    """What an OUTPUT holds and what is wrong with it, the first few offenders named."""
    from job.results import verdict as verdicts

    lines = [
        f"{counted(verdict.images, 'image')}: {counted(verdict.maps, 'map')},"
        f" {counted(verdict.open_errors, 'error')},"
        f" {verdict.not_done:,} not done"
    ]
    for kind, (count, first) in verdict.problems.items():
        lines.append(f"  {counted(count, verdicts.KINDS[kind], kind)}")
        lines += [f"    {redact(offender)}" for offender in first]
        if count > len(first):
            lines.append(f"    and {count - len(first):,} more")
    for kind, (count, _) in verdict.notes.items():
        told = counted(count, verdicts.NOTES[kind].one, kind)
        lines.append(f"  note: {told}: {verdicts.NOTES[kind].means(count)}")
    kinds = verdict.problems.keys()
    lines += [f"  {remedy}" for remedy, of in verdicts.REMEDIES.items() if of & kinds]
    if verdict.to_do:
        left = "image that is" if verdict.to_do == 1 else f"{verdict.to_do:,} images that are"
        lines.append(f"  the same command does the {left} left")
    if verdict.is_complete:
        every = "the image" if verdict.images == 1 else "every image"
        lines.append(f"  {every} has exactly one map or error row")
    return "\n".join(lines)
