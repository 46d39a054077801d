import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hf_gpt.evaluation.statistics.curves import (
    Plane,
    Point,
    common_reference,
    hypervolume,
    pareto_front,
    super_baseline,
)
from hf_gpt.reporting.curve_plots import describe_curves, draw_curves


HIGHER = Plane("quality", "diversity", "higher", "higher")
LOWER = Plane("LM score", "reverse LM score", "lower", "lower")


def points(*pairs, model="m"):
    """From (quality, diversity)."""
    return [Point(model, f"T={n}", *pair) for n, pair in enumerate(pairs)]


def test_pareto_front_by_hand():
    # (1, 5) has no equal in diversity, (2, 3) and (4, 1) lie on the front, (1.5, 2) is below both, (4, 0.5) below one.
    some = points((4, 1), (1, 5), (1.5, 2), (2, 3), (4, 0.5))
    assert [(p.quality, p.diversity) for p in pareto_front(some, HIGHER)] == [(1, 5), (2, 3), (4, 1)]


@pytest.mark.parametrize("plane", [HIGHER, LOWER, Plane(), Plane(quality="lower", diversity="higher")])
def test_pareto_front_by_comparing_all_pairs(plane):
    some = points(*np.random.default_rng(0).integers(0, 9, (40, 2)).astype(float).tolist())

    def beaten(point):
        mine = plane.oriented(point)
        others = [plane.oriented(other) for other in some]
        return any(o != mine and o[0] >= mine[0] and o[1] >= mine[1] for o in others)

    expected = {(p.quality, p.diversity) for p in some if not beaten(p)}
    front = pareto_front(some, plane)
    assert {(p.quality, p.diversity) for p in front} == expected and len(front) == len(expected)


def test_hypervolume_by_counting_cells():
    some = points((4, 1), (1, 5), (1.5, 2), (2, 3))
    assert hypervolume(some, (0, 0), HIGHER) == 5 * 1 + 3 * 1 + 1 * 2
    grid = (np.arange(600) + 0.5) / 100
    covered = np.zeros((600, 600), bool)
    for point in some:
        covered |= (grid[:, None] < point.quality) & (grid < point.diversity)
    assert hypervolume(some, (0, 0), HIGHER) == pytest.approx(covered.mean() * 36, abs=0.1)
    turned = [Point("m", p.setting, -p.quality, -p.diversity) for p in some]
    assert hypervolume(turned, (0, 0), LOWER) == hypervolume(some, (0, 0), HIGHER)
    assert hypervolume(some, (10, 10), HIGHER) == 0
    assert common_reference(some, HIGHER) == (1, 1) and common_reference(some, LOWER) == (4, 5)


def test_each_model_at_its_own_best_setting():
    def row(model, setting, bleu, distance):
        return {"model": model, "setting": setting, "bleu": bleu, "distance": distance}

    chosen = [row("a", "T=1", 0.2, 1.0), row("a", "T=.5", 0.3, 3.0), row("a", "T=.5", 0.3, 2.0), row("b", "T=1", 0, 9)]
    reported = [row("a", "T=1", 0.9, 1.5), row("a", "T=.5", 0.2, 0), row("a", "T=.5", 0.4, 0), row("b", "T=1", 0, 8)]
    better = {"bleu": "higher", "distance": "lower"}
    found = {(best.model, best.metric): best for best in super_baseline(chosen, reported, better)}
    # Chosen by the first table, reported from the second, though another setting is better there.
    assert found["a", "bleu"].setting == "T=.5" and found["a", "bleu"].mean == pytest.approx(0.3)
    assert found["a", "bleu"].spread == pytest.approx(0.2 / 2**0.5) and found["a", "bleu"].seeds == 2
    assert found["a", "distance"].setting == "T=1" and found["a", "distance"].mean == 1.5
    assert found["b", "distance"].mean == 8
    with pytest.raises(ValueError, match="not among the reported rows"):
        super_baseline(chosen, reported[:1], {"bleu": "higher"})
    with pytest.raises(ValueError, match="row 0 has no 'mauve'"):
        super_baseline(chosen, reported, {"mauve": "higher"})
    with pytest.raises(ValueError, match="must be finite"):
        super_baseline([row("a", "T=1", float("nan"), 1)], reported, {"bleu": "higher"})


def test_bad_points_are_explained():
    with pytest.raises(ValueError, match="there are no points"):
        pareto_front([])
    with pytest.raises(ValueError, match="'m' with 'T=0' has quality nan"):
        hypervolume(points((float("nan"), 1)), (0, 0))
    with pytest.raises(ValueError, match="'higher' or 'lower'"):
        Plane(quality="up")


def test_drawing_is_well_formed_and_told_in_words():
    some = [*points((0.2, 0.3), (0.4, 0.7), (0.1, 0.8)), *points((0.3, 0.5), model="other <model>")]
    drawing = draw_curves(some, uid="curves")
    root = ElementTree.fromstring(drawing)
    assert root.tag.endswith("svg") and "BLEU-5 against self-BLEU-5" in root.attrib["aria-label"]
    texts = "".join(root.itertext())
    assert "other <model>" in texts and "self-BLEU-5 (lower is better)" in texts
    assert "var(--series-1)" in drawing and "#010202" not in drawing
    assert describe_curves(some).startswith("BLEU-5 against self-BLEU-5. m: 0.2 at 0.3 to 0.4 at 0.7.")
