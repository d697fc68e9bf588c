"""Summary: a receipt as a few lines a person reads."""

import numpy as np

from job.comparison import BASELINE, Comparison
from job.evaluation import Scores
from job.measures import PREDICTING
from job.pipeline import Plan
from job.presentable import presentable
from job.progress import duration
from job.receipts import Receipt
from job.resources import Cluster, request
from job.verification import Verdict


def of_run(receipt: Receipt, output: str) -> str:
    """What a run has done, and where it is."""
    if receipt.remaining == 0:
        return (
            f"Nothing to do: all {receipt.images:,} images have a map or an error row already."
            f"\n  output  {output}"
        )
    lines = [
        f"{receipt.maps:,} maps of {receipt.remaining:,} images in {duration(receipt.seconds)}"
        f" ({receipt.images_per_second:.1f} images/s)"
    ]
    if receipt.done_before:
        lines.append(f"  before  {receipt.done_before:,} images were done already")
    if receipt.errors:
        kinds = sorted(receipt.errors.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in kinds)
        lines.append(f"  errors  {receipt.failed:,}: {listed}")
    else:
        lines.append("  errors  none")
    if receipt.retries:
        lines.append(f"  retried {receipt.retries:,} requests to storage")
    if receipt.steady:  # shares of less than a few seconds mean little
        lines.append(f"  busy    {_busy(receipt)}")
    place = output.rstrip("/")
    lines += [f"  maps    {place}/maps/", f"  receipt {place}/runs/{receipt.run_id}.json"]
    return "\n".join(lines)


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


def is_good(receipt: Receipt, max_error_rate: float) -> bool:
    """Whether a run did what was asked: every image accounted for, few enough of them failed."""
    accounted = receipt.maps + receipt.failed == receipt.remaining
    return accounted and (
        receipt.remaining == 0 or receipt.failed / receipt.remaining <= max_error_rate
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
    lost = receipt.remaining - receipt.maps - receipt.failed
    if lost:
        return (
            f"{lost:,} of {receipt.remaining:,} images have neither a map nor an error row. The"
            " same command goes on with them"
        )
    share, limit = receipt.failed / receipt.remaining, max_error_rate
    lines = [
        f"{receipt.failed:,} of {receipt.remaining:,} images failed ({_percent(share)}), more than"
        f" --max-error-rate {_percent(limit)}"
    ]
    lines += [f"  {uri}: {reason}" for uri, reason in first]
    if receipt.failed > len(first):
        lines.append(f"  and {receipt.failed - len(first):,} more")
    lines.append(f"  all of them: {place}/errors/")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def of_plan(plan: Plan) -> str:
    """What a run would do."""
    images = plan.images
    size = f"{images.size / 1e9:.1f} GB" if images.size >= 1e9 else f"{images.size / 1e6:.1f} MB"
    lines = [
        f"{plan.remaining:,} images to do: {images.images:,} listed ({size}), {plan.done:,} done",
        f"  model     {plan.model.origin.name}, {len(plan.model.labels)} classes",
        f"  cluster   {_cluster(plan.cluster)}",
        f"  resources {plan.allotment}",
    ]
    if images.left_out.total:
        lines.insert(1, f"  left out  {images.left_out}")
    return "\n".join(lines)


def _cluster(cluster: Cluster) -> str:
    """What a cluster has, and may grow to."""
    nodes = len(cluster.nodes)
    now = request(cluster.cpus, cluster.gpus) if nodes else "no node that takes tasks is up"
    if nodes:
        now += f" on {nodes} node{'' if nodes == 1 else 's'}"
    if cluster.growth is None:
        return f"{now}; what it may grow to is not known here"
    kinds = [f"{kind.most:,} with {request(kind.cpus, kind.gpus)}" for kind in cluster.types]
    if not kinds:
        return now
    return f"{now}; may grow to {cluster.growth.most_nodes:,} nodes: at most {', '.join(kinds)}"


def of_scores(scores: Scores) -> str:
    """How good maps are: the two figures, then a line for each class."""
    lines = [
        f"pixel accuracy {scores.pixel_accuracy:.4f}, mIoU {scores.mean_iou:.4f}"
        f" over {scores.images:,} images"
    ]
    if scores.without_truth:
        lines.append(f"  {scores.without_truth:,} maps have no annotation")
    names = [presentable(name) for name in scores.names]
    width = max(map(len, names))
    lines += [
        f"  {name:<{width}}  {value:.4f}"
        for name, value in zip(names, scores.iou, strict=True)
        if np.isfinite(value)
    ]
    return "\n".join(lines)


def of_comparison(comparison: Comparison) -> str:
    """The architectures as a table, speed-up over the notebook's BatchPredictor."""
    rows = [("", "images/s", "first map", "peak memory", "equal pixels", "speed-up")]
    for timing in comparison.timings:
        rows.append(
            (
                timing.name,
                f"{timing.steady:.2f}",
                f"{timing.first_map:.1f} s",
                f"{timing.peak_memory / 2**30:.1f} GiB",
                f"{100 * timing.agreement:.4f} %",
                f"{comparison.speedup(timing.name, BASELINE):.1f}×",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


def of_verdict(verdict: Verdict) -> str:
    """What an OUTPUT holds and what is wrong with it, the first few offenders named."""
    lines = [
        f"{verdict.images:,} images: {verdict.maps:,} maps, {verdict.open_errors:,} errors,"
        f" {verdict.not_done:,} not done"
    ]
    for kind, (count, first) in verdict.problems.items():
        lines.append(f"  {count:,} {kind}")
        lines += [f"    {presentable(offender)}" for offender in first]
        if count > len(first):
            lines.append(f"    and {count - len(first):,} more")
    if verdict.is_complete:
        lines.append("  every image has exactly one map or error row")
    return "\n".join(lines)
