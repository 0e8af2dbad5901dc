"""A comparison as one picture: cosines, overlap of rankings, nDCG by query. Knows matplotlib, and no files."""

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.quality.compare.agreement import Cosines
from benchmarks.quality.compare.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOR = "tab:blue"


def draw(found: Comparison) -> "Figure":
    """Three panels side by side; whoever saves the figure chooses the format."""
    # Without pyplot: no window system, and nothing to close.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    cosine, overlap, ndcg = figure.subplots(1, 3)
    figure.suptitle(f"A: {found.a}     B: {found.b}     on {found.data}", fontsize=10)
    _draw_cosines(cosine, found)
    _draw_overlap(overlap, found)
    _draw_ndcg(ndcg, found)
    return figure


def _draw_cosines(axes: "Axes", found: Comparison) -> None:
    axes.set_title("cosine of A's and B's vector of an input")
    if not isinstance(found.cosines, Cosines):
        _say(axes, f"not comparable:\n{found.cosines}")
        return
    axes.hist(found.cosines.values, bins=40, color=_COLOR)
    axes.axvline(found.cosines.percentiles[50], color="black", linewidth=1, label="median")
    axes.set_xlabel("cosine")
    axes.set_ylabel("inputs")
    axes.legend()


def _draw_overlap(axes: "Axes", found: Comparison) -> None:
    axes.set_title("documents that A and B both put among the first k")
    depths = list(found.agreement.overlap)
    means = [float(values.mean()) for values in found.agreement.overlap.values()]
    bars = axes.bar([f"k = {k}" for k in depths], means, color=_COLOR)
    axes.bar_label(bars, labels=[f"{mean:.3f}" for mean in means])
    axes.set_ylim(0, 1.1)
    axes.set_ylabel("part, mean over queries")


def _draw_ndcg(axes: "Axes", found: Comparison) -> None:
    axes.set_title(f"nDCG@{found.k} of each query")
    if found.ndcg is None:
        _say(axes, "no judgments here")
        return
    # Queries share a few values; without this they would lie under each other.
    spread = np.random.default_rng(0).normal(0, 0.008, (2, len(found.ndcg.a)))
    axes.scatter(found.ndcg.a + spread[0], found.ndcg.b + spread[1], s=12, alpha=0.5, color=_COLOR)
    axes.plot([0, 1], [0, 1], color="black", linewidth=1)
    axes.set_xlabel("A")
    axes.set_ylabel("B")
    axes.text(
        0.03, 0.97, f"mean of B - A: {found.ndcg.mean:+.4f}", transform=axes.transAxes, va="top"
    )


def _say(axes: "Axes", text: str) -> None:
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
