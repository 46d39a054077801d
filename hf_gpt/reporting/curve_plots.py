"""Quality-diversity curves as inline SVG, in the style of `hf_gpt.reporting.plots`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_gpt.evaluation.statistics.curves import SELF_BLEU, Plane, Point, by_model, pareto_front
from hf_gpt.reporting.chart import format_number
from hf_gpt.reporting.plots import AXIS, SERIES, render_svg


if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P")


def draw_curves(
    points: Sequence[Point],
    plane: Plane = SELF_BLEU,
    *,
    uid: str,
    width: int = 640,
    height: int = 420,
    names: bool = True,
) -> str:
    """All models in one plane, better to the top right, as an `<svg>` element.

    Every setting is a mark; a line joins the Pareto points of a model.

    Args:
        points: Of all models.
        plane: What the axes are and which way is better; an axis on which lower is better is turned round.
        uid: Prefix of every id in the drawing, unique in the page.
        width, height: In CSS pixels that the letters are sized for.
        names: Whether a legend names the models.

    Raises:
        ValueError: there are no points, or a figure is not finite.
    """
    groups = by_model(points)
    fronts = {model: pareto_front(some, plane) for model, some in groups.items()}

    def draw(axes: "Axes") -> None:
        for number, (model, some) in enumerate(groups.items()):
            colour, marker = SERIES[number % len(SERIES)], _MARKERS[number // len(SERIES) % len(_MARKERS)]
            front = fronts[model]
            line = [p.diversity for p in front], [p.quality for p in front]
            axes.plot(*line, color=colour, lw=1.8, marker=marker, ms=5, label=model)
            axes.plot([p.diversity for p in some], [p.quality for p in some], color=colour, lw=0, marker=marker, ms=5)
        axes.set_xlabel(_label(plane.diversity_name, plane.diversity), color=AXIS)
        axes.set_ylabel(_label(plane.quality_name, plane.quality), color=AXIS)
        axes.margins(x=0.15, y=0.12)
        if plane.diversity == "lower":
            axes.invert_xaxis()
        if plane.quality == "lower":
            axes.invert_yaxis()
        if names:
            axes.legend(frameon=False, fontsize=11, labelcolor=AXIS)

    return render_svg(draw, uid=uid, width=width, height=height, label=describe_curves(points, plane))


def describe_curves(points: Sequence[Point], plane: Plane = SELF_BLEU) -> str:
    """The drawing in words: the ends of each model's Pareto front."""
    texts = []
    for model, some in by_model(points).items():
        front = pareto_front(some, plane)
        ends = [
            f"{format_number(p.quality)} at {format_number(p.diversity)}" for p in dict.fromkeys((front[0], front[-1]))
        ]
        texts.append(f"{model}: {' to '.join(ends)}.")
    return f"{plane.quality_name} against {plane.diversity_name}. {' '.join(texts)}"


def _label(name: str, better: str) -> str:
    return f"{name} ({better} is better)"
