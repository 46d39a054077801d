import json

import pytest
import torch

from eval.experiments.known_answer import __main__ as known_answer
from eval.experiments.known_answer import perfect_ratio
from eval.experiments.known_answer import report as known_answer_report
from hf_gpt.evaluation.statistics.divergences import compare_densities


def _point(temperature, **values):
    return {"temperature": temperature} | {name: {"value": value, "error": 0.01} for name, value in values.items()}


def _arm(*points, **more):
    return {
        "cpu_seconds": 1.0,
        "curve": [_point(t, kl_qp=k, entropy_q=h, nll_oracle=n) for t, k, h, n in points],
    } | more


RESULT = {
    "seed": 0,
    "arms": {
        "MLE": _arm((1.0, 3.0, 10.0, 13.0), (0.5, 2.0, 6.0, 8.0)),
        "MLE, same compute": _arm((1.0, 2.5, 9.0, 11.5), (0.5, 2.2, 5.0, 7.2)),
        "REINFORCE": _arm((1.0, 1.5, 7.0, 8.5)),
    },
}


def test_likelihood_is_taken_at_its_best():
    assert known_answer_report.best_likelihood_kl(RESULT) == 2.0
    ratios = known_answer_report.kl_ratios(RESULT)
    assert ratios == {"MLE": 1.5, "MLE, same compute": 1.25, "REINFORCE": 0.75}


def test_comparison_at_equal_entropy():
    # At H(q) = 7: 9.25 between the temperatures of one arm, 9.35 between those of the other.
    assert known_answer_report.likelihood_nll_at(RESULT, 7.0) == pytest.approx(9.25)
    assert known_answer_report.likelihood_nll_at(RESULT, 9.5) == pytest.approx(12.375)
    assert known_answer_report.likelihood_nll_at(RESULT, 4.0) is None


def test_table_of_collapse(tmp_path):
    def run(seed, warnings, entropy, nll):
        curve = [(1.0, 3.0, 12.0, 15.0), (0.5, 2.0, 8.0, 11.0)]
        history = [{"entropy": 12.0, "oracle_nll": 15.0, "repetition_rate": rate} for rate in (0.02, 0.3)]
        arms = {
            "MLE": _arm(*curve),
            "plain": _arm((1.0, 1.0, 2.0, 3.0), warnings=warnings, history=history),
            "anchored": _arm((1.0, 1.5, entropy, nll), warnings={}, history=history[:1]),
        }
        for arm in arms.values():
            for point in arm["curve"]:
                point["entropy_p"] = {"value": 10.0, "error": 0.01}
        return {"seed": seed, "arms": arms, "settings": {"vocab_size": 64, "length": 20}}

    runs = [run(0, {"entropy collapse": 5, "forgetting": 10}, 10.0, 12.5), run(1, {"entropy collapse": 10}, 9.5, 12.0)]
    text = known_answer_report.write_report({"collapse": runs}, tmp_path)
    assert "| 0.20, 0.20 | 1.00 ± 0.00 | 30.0%, 30.0% | entropy collapse (5, 10); forgetting (10, never) |" in text
    # Likelihood has 13.0 at an entropy of 10.0 and 12.5 at 9.5.
    assert "| 1.00, 0.95 | 1.50 ± 0.00 | 2.0%, 2.0% | none | 12.25 ± 0.35 | -0.50, -0.50 |" in text
    assert (tmp_path / "known_answer.png").is_file()


@pytest.mark.parametrize(
    "loss",
    [
        perfect_ratio.reinforce,
        perfect_ratio.exact_token,
        perfect_ratio.exact_and_future,
        perfect_ratio.jensen_shannon,
        perfect_ratio.exact_divergence("jsd", 0.5),
        perfect_ratio.exact_divergence("forward_kl", 0.5),
    ],
    ids=["reinforce", "exact_token", "exact_and_future", "jensen_shannon", "exact_jsd", "exact_forward_kl"],
)
def test_each_estimator_comes_closer_to_the_data(loss):
    stage = perfect_ratio.make_stage(vocab_size=6, length=3, sharpness=1.0, num_train=64, seed=0)
    torch.manual_seed(0)
    start = perfect_ratio.make_generator(6, 3, 8)
    trained = perfect_ratio.train(start, stage, 30, 256, 2e-2, seed=0, estimator=loss)
    data = perfect_ratio.sample_texts(stage.language, 500, 3, 1)

    def distance(model):
        return compare_densities(stage.language, model, data, perfect_ratio.sample_texts(model, 500, 3, 2)).estimates

    before, after = distance(start), distance(trained)
    assert after["kl_qp"].value < 0.5 * before["kl_qp"].value
    assert after["jsd"].value < before["jsd"].value


def test_a_step_is_told_with_its_sample():
    stage = perfect_ratio.make_stage(vocab_size=6, length=3, sharpness=1.0, num_train=8, seed=0)
    steps = []
    settings = {"seed": 0, "estimator": perfect_ratio.reinforce, "on_step": lambda *told: steps.append(told)}
    perfect_ratio.train(perfect_ratio.make_generator(6, 3, 8), stage, 2, 4, 1e-2, **settings)
    assert [step for step, _, _ in steps] == [1, 2] and all(len(sample.texts) == 4 for _, _, sample in steps)


def test_a_batch_is_at_most_all_texts():
    stage = perfect_ratio.make_stage(vocab_size=6, length=3, sharpness=1.0, num_train=8, seed=0)
    start = perfect_ratio.make_generator(6, 3, 8)
    trained = perfect_ratio.train(start, stage, 2, 9, 1e-2, seed=0)
    assert perfect_ratio.likelihood(trained, stage.train) < perfect_ratio.likelihood(start, stage.train)


def test_a_run_is_measured_kept_and_not_repeated(tmp_path, monkeypatch, capsys):
    arms = {"MLE, same compute": (None, 1.0, 5e-3), "REINFORCE": ("reinforce", 0.0, 1e-2)}
    small = {"likelihood_batch": 8, "adversarial_batch": 8, "temperatures": (1.0, 0.7), "arms": arms}
    for name, settings in known_answer.EXPERIMENTS.items():
        quick = known_answer.replace(settings, **small, monitor_every=2 if name == "collapse" else 0)
        monkeypatch.setitem(known_answer.EXPERIMENTS, name, quick)
    command = ["--seeds", "3", "--output_dir", str(tmp_path), "--scale", "0.005"]
    assert known_answer.main(command) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("Gain:") :]
    assert table.count("| REINFORCE |") == 2 and "Reached by:" in table
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "known_answer.md", "known_answer.png"}
    points = json.loads((tmp_path / "results.json").read_text())["points"]
    assert [entry["step"] for entry in points["3/collapse"]["arms"]["REINFORCE"]["history"]] == [0, 2, 4]

    monkeypatch.setattr(known_answer, "run", None)
    assert known_answer.main(command) == 0
    assert capsys.readouterr().out == table
    with pytest.raises(SystemExit, match="other settings"):
        known_answer.main([*command[:-1], "0.006"])
