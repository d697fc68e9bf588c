"""Chart: a comparison as bars."""

from pathlib import Path

from job.compare.comparison import BASELINE, Comparison
from job.wording import counted


def draw(comparison: Comparison, path: Path) -> None:
    """Save a bar chart of images per second in steady state as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [timing.name for timing in comparison.timings]
    rates = [timing.steady for timing in comparison.timings]
    colours = ["#d9480f" if timing.is_whole_job else "#adb5bd" for timing in comparison.timings]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(names) + 1.2))
    bars = axes.barh(names, rates, color=colours)
    labels = [
        f"{timing.steady:.1f}  ({comparison.speedup(timing.name, BASELINE):.1f}×)"
        for timing in comparison.timings
    ]
    axes.bar_label(bars, labels, padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.26)
    axes.set_xlabel(f"images/s, steady state, over {counted(comparison.images, 'image')}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
