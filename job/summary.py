"""Summary: a receipt as a few lines a person reads."""

from job.progress import duration
from job.receipts import Receipt


def of_run(receipt: Receipt, output: str) -> str:
    """What a run has done, and where it is."""
    if receipt.todo == 0:
        return (
            f"Nothing to do: all {receipt.images:,} images have a map or an error row already."
            f"\n  output  {output}"
        )
    lines = [
        f"{receipt.maps:,} maps of {receipt.todo:,} images in {duration(receipt.seconds)}"
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
    place = output.rstrip("/")
    lines += [f"  maps    {place}/maps/", f"  receipt {place}/runs/{receipt.run_id}.json"]
    return "\n".join(lines)


def is_good(receipt: Receipt, max_error_rate: float) -> bool:
    """Whether a run did what was asked: every image accounted for, few enough of them failed."""
    accounted = receipt.maps + receipt.failed == receipt.todo
    return accounted and (receipt.todo == 0 or receipt.failed / receipt.todo <= max_error_rate)
