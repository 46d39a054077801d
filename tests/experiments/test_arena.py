"""The distillation arena's pure parts: equal entropy, compute accounting, rows, the learned ratio, the verdict."""

import copy
import math

import pytest
import torch

from eval.experiments.arena import __main__ as arena
from eval.experiments.arena.curves import Point, best, gain, kl_at, temperature_at
from eval.experiments.arena.ledger import Cost, Ledger
from eval.experiments.arena.report import table
from eval.experiments.arena.settings import ARMS, CEILING, LIKELIHOOD, OURS, Settings
from eval.experiments.arena.stage import BEGIN, FILES, as_texts, make_model
from eval.experiments.common.adversarial import method_of


WORDS = ["dog", "cat", "man", "boat", "car", "tree", "hat", "ball"]
LINE = [Point(t, h, 0.5 + 0.2 * h) for t, h in ((1.0, 3.0), (0.8, 2.0), (0.6, 1.0))]


@pytest.mark.parametrize("entropy", [1.0, 1.4, 2.0, 2.75, 3.0])
def test_a_straight_curve_is_interpolated_exactly(entropy):
    assert kl_at(LINE, entropy) == pytest.approx(0.5 + 0.2 * entropy)


def test_a_convex_curve_is_met_closer_than_by_straight_lines():
    points = [Point(1.0, h / 2, (h / 2 - 1.5) ** 2) for h in range(2, 9)]
    truth = (1.75 - 1.5) ** 2
    straight = ((1.5 - 1.5) ** 2 + (2.0 - 1.5) ** 2) / 2
    assert abs(kl_at(points, 1.75) - truth) < abs(straight - truth)


def test_the_temperature_of_an_entropy():
    assert temperature_at(LINE, 2.5) == pytest.approx(0.9)
    assert temperature_at(LINE, 0.5) is None


def test_nothing_is_extrapolated():
    assert kl_at(LINE, 0.99) is None
    assert kl_at(LINE, 3.01) is None
    assert gain(Point(1.0, 4.0, 0.1), LINE) is None


def test_the_gain_is_the_difference_at_the_arms_own_entropy():
    arm = [Point(1.0, 2.5, 0.8, 0.03), Point(0.8, 1.5, 0.6, 0.03), Point(0.6, 0.5, 0.9, 0.03)]
    baseline = [Point(p.temperature, p.entropy, p.kl, 0.04) for p in LINE]
    assert best(arm).temperature == 0.8
    assert gain(best(arm), baseline) == pytest.approx((0.8 - 0.6, 0.05))
    assert gain(arm[0], baseline)[0] == pytest.approx(1.0 - 0.8)


def test_the_ledger_counts_matrix_products_by_hand():
    model = make_model(vocab_size=11, length=5, hidden_size=8, num_hidden_layers=2)
    weights = 2 * (4 * 8 * 8 + 2 * 8 * 32) + 11 * 8
    attention = 4 * 6 * 8 * 2
    forward = 2 * weights + attention
    ledger, ids = Ledger(), torch.zeros(3, 4, dtype=torch.int64)
    with ledger.watching(model) as cost:
        model(input_ids=ids)
        with torch.no_grad():
            model(input_ids=ids)
            copy.deepcopy(model)(input_ids=ids)
        copy.deepcopy(model).requires_grad_(False)(input_ids=ids)
    assert cost.flops == ids.numel() * forward * (3 + 1 + 1 + 1)
    assert cost.seconds > 0


def test_the_ledger_closes():
    model, ledger = make_model(11, 5, 8, 1), Ledger()
    with ledger.watching(model):
        other = copy.deepcopy(model)
    model(input_ids=torch.zeros(1, 2, dtype=torch.int64))
    other(input_ids=torch.zeros(1, 2, dtype=torch.int64))
    assert ledger.cost.flops == 0


def test_costs_add_up():
    assert Cost(1.0, 2.0) + Cost(10.0, 20.0) == Cost(11.0, 22.0)


def test_rows_become_texts_after_the_begin_token():
    texts = as_texts(torch.tensor([[4, 1, 5], [6, 7, 1]]))
    assert texts.sequences.tolist() == [[BEGIN, 4, 1, 5], [BEGIN, 6, 7, 1]]
    assert texts.completions.tolist() == [[4, 1, 5], [6, 7, 1]]
    assert texts.attention_mask.sum() == 8 and texts.completion_mask.sum() == 6


def test_the_learned_ratio_finds_what_tells_the_students_texts():
    from eval.experiments.arena.learned_ratio import LearnedRatio
    from eval.experiments.known_answer.perfect_ratio import Stage, sample

    real = as_texts(torch.tensor([[2, 3, 2, 3], [3, 2, 3, 2]]).repeat(32, 1))
    student, psi = make_model(5, 4, 16, 1, seed=0), make_model(5, 4, 16, 1, seed=1)
    ratio = LearnedRatio(psi, real, learning_rate=2e-2, weight=0.3, seed=0)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(40):
        losses.append(ratio.update(student, sample(student, Stage(psi, real, 4), 32, generator)))
    # Of 625 texts the data hold two.
    assert losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert losses[-1] < 0.1


def _run(seed: int, gain_of_ours: float, auc_of_ours: float) -> dict:
    def arm(kl: float, auc: float, entropies: tuple[float, ...]) -> dict:
        curve = []
        for temperature, entropy in zip((1.0, 0.8), entropies, strict=True):
            nats = {"entropy_q": entropy, "kl_qp": kl, "kl_pq": 1.0, "entropy_p": 2.0}
            estimates = {name: {"value": 10 * value, "error": 0.1} for name, value in nats.items()}
            curve.append({"temperature": temperature, **estimates, "perfect_auc": 0.9})
        fresh = [{"temperature": t, "arm": {"auc": auc}, "baseline": {"auc": 0.8}} for t in (1.0, 0.8)]
        return {"cost": {"flops": 2e9, "seconds": 3.0}, "curve": curve, "fresh": fresh}

    arms = {
        OURS: arm(0.7 - gain_of_ours, auc_of_ours, (1.8, 1.5)),
        CEILING: arm(0.4, 0.6, (1.8, 1.5)),
        LIKELIHOOD: arm(0.7, 0.8, (2.2, 1.2)),
    }
    return {"seed": seed, "settings": {"length": 10}, "arms": arms}


def test_the_line_is_reached_in_every_seed_or_not_at_all():
    reached = table([_run(0, 0.12, 0.7), _run(1, 0.15, 0.75)])
    assert f"Reached by: {OURS}." in reached
    assert "+0.120 ± 0.014, +0.150 ± 0.014" in reached
    assert "Reached by: none." in table([_run(0, 0.12, 0.7), _run(1, 0.09, 0.7)])
    assert "Reached by: none." in table([_run(0, 0.12, 0.7), _run(1, 0.15, 0.85)])


def test_a_quick_look_keeps_the_models():
    settings = Settings()
    small = settings.scaled(0.1)
    assert (small.student, small.psi, small.vocab_size) == (settings.student, settings.psi, settings.vocab_size)
    assert small.adversarial_steps == round(0.1 * settings.adversarial_steps)


def test_grgc_is_gad_with_a_calibrated_critic_and_a_signed_power():
    gad, grgc = method_of("gad"), method_of("grgc")
    assert (gad["discriminator_loss"], gad["estimator"], gad["group_size"]) == ("bradley_terry", "grpo", 8)
    assert dict(grgc.items() - gad.items()) == {"calibration_weight": 0.01, "advantage_power": 1.5}
    assert gad.keys() <= grgc.keys()


@pytest.mark.slow
def test_a_small_run_has_every_arm_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    lines = [f"{who} {what} a {thing}" for who in ("he", "she", "it") for what in ("has", "sees") for thing in WORDS]
    for name in FILES:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines * 20), encoding="utf-8")
    monkeypatch.setenv("HF_GPT_DATA", str(tmp_path / "data"))
    command = ["--seeds", "0", "--scale", "0.02", "--output_dir", str(tmp_path / "run")]
    assert arena.main(command) == 0
    table = (tmp_path / "run" / "arena.md").read_text(encoding="utf-8")
    assert all(f"| {arm} |" in table for arm in ARMS) and (tmp_path / "run" / "arena.png").is_file()
    monkeypatch.setattr(arena.World, "student", None)
    capsys.readouterr()
    assert arena.main(command) == 0
    assert capsys.readouterr().out.strip() == table.strip()
