"""The honesty board against enumeration, against SeqGAN's own formulas in NumPy, and from the command line."""

import itertools
import math
import os
import pickle

import numpy as np
import pytest
import torch

from eval.experiments.common.adversarial import method_of, read_recipe
from eval.experiments.oracle_board import __main__ as board
from eval.experiments.oracle_board import report
from eval.experiments.oracle_board import training as generators
from eval.experiments.oracle_board.language import make_oracle, read_oracle
from eval.experiments.oracle_board.measures import copying, log_density, lookup_table, measure, sample
from hf_gpt.adversarial.config import AdversarialConfig


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _seqgan_log_probabilities(arrays, text):
    """SeqGAN's `target_lstm.py`: gates i, f, o and the candidate c, from row vectors times matrices; START is 0."""
    emb, wi, ui, bi, wf, uf, bf, wo, uo, bo, wc, uc, bc, head, bias = arrays
    hidden = memory = np.zeros(emb.shape[1])
    found = []
    for before, token in zip([0, *text[:-1]], text, strict=True):
        x = emb[before]
        i, f, o = (_sigmoid(x @ w + hidden @ u + b) for w, u, b in ((wi, ui, bi), (wf, uf, bf), (wo, uo, bo)))
        memory = f * memory + i * np.tanh(x @ wc + hidden @ uc + bc)
        hidden = o * np.tanh(memory)
        logits = hidden @ head + bias
        found.append(logits[token] - np.log(np.exp(logits).sum()))
    return found


def test_the_oracle_is_that_of_seqgans_file(tmp_path):
    generator, width, vocab = np.random.default_rng(0), 3, 5
    gate = [(width, width), (width, width), (width,)]
    shapes = [(vocab, width), *gate * 4, (width, vocab), (vocab,)]
    arrays = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    path = tmp_path / "target_params.pkl"
    path.write_bytes(pickle.dumps(arrays))
    text = [1, 4, 0, 2]
    found = log_density(read_oracle(path), torch.tensor([text]))
    assert found == pytest.approx([sum(_seqgan_log_probabilities(arrays, text))], abs=1e-5)
    path.write_bytes(pickle.dumps(arrays[:-1]))
    with pytest.raises(ValueError, match="15 arrays"):
        read_oracle(path)


def test_a_file_of_the_oracle_runs_no_code(tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(Bad()))
    with pytest.raises(ValueError, match="does not hold"):
        read_oracle(path)
    assert not (tmp_path / "made").exists()


def test_the_oracle_has_one_bias_a_gate_and_goes_on_from_its_state():
    oracle = make_oracle(3, vocab_size=7, width=4)
    assert not oracle.lstm.bias_hh_l0.any() and oracle.lstm.bias_ih_l0.std() > 0.3
    ids = torch.tensor([[0, 3, 6, 2], [0, 1, 1, 5]])
    whole, state, parts = oracle(ids).logits, None, []
    for column in ids.split(1, 1):
        output = oracle(column, past_key_values=state, use_cache=True)
        state = output.past_key_values
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_figures_are_those_of_all_texts():
    """Vocabulary 4, length 2: all 16 texts, whose sums the sample's means must meet within their errors."""
    oracle, model = make_oracle(0, 4, 4), generators.make_generator(4, 4, seed=1)
    torch.nn.init.normal_(model.lm_head.weight, std=2.0, generator=torch.Generator().manual_seed(0))
    every = torch.tensor(list(itertools.product(range(4), repeat=2)))
    temperature = 0.7
    p, q = log_density(oracle, every), log_density(model, every, temperature)
    assert np.exp(p).sum() == pytest.approx(1) and np.exp(q).sum() == pytest.approx(1)
    test = sample(oracle, 3000, 2, seed=5)
    found = measure(oracle, model, every[:3], test, count=3000, temperature=temperature, seed=6)
    exact = {
        "nll_oracle": -(np.exp(q) * p).sum() / 2,
        "entropy": -(np.exp(q) * q).sum() / 2,
        "reverse_kl": (np.exp(q) * (q - p)).sum() / 2,
        "nll_test": -(np.exp(p) * q).sum() / 2,
        "data_entropy": -(np.exp(p) * p).sum() / 2,
    }
    for name, value in exact.items():
        assert abs(found[name] - value) < 4 * found[f"{name}_error"], name
    assert found["reverse_kl"] == pytest.approx(found["nll_oracle"] - found["entropy"])
    assert found["copy_rate"] == pytest.approx(np.exp(q)[:3].sum(), abs=0.04)


def test_a_lookup_table_looks_like_real_text_and_has_no_entropy():
    oracle = make_oracle(0, 30, 4)
    training, test = sample(oracle, 40, 5, 1), sample(oracle, 40, 5, 2)
    training = torch.cat([training, training])
    found = lookup_table(oracle, training, test)
    assert found["nll_oracle"] == pytest.approx(-log_density(oracle, training.unique(dim=0)).mean() / 5)
    assert found["entropy"] == pytest.approx(math.log(len(training.unique(dim=0))) / 5)
    assert found["copy_rate"] == found["shared_ngrams"] == 1


def test_copies_are_counted():
    found = copying(torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]), torch.tensor([[1, 2, 3, 4, 5], [9, 9, 9, 9, 9]]))
    # Of the four 4-grams 2345 once and 1234 twice.
    assert found == {"copy_rate": 0.5, "shared_ngrams": 0.75}


def test_the_best_epoch_is_kept_beside_the_last():
    oracle = make_oracle(0, 20, 8)
    training, validation = sample(oracle, 60, 6, 1), sample(oracle, 60, 6, 2)
    settings = {"epochs": 12, "batch_size": 10, "learning_rate": 5e-2}
    found = generators.train_likelihood(generators.make_generator(20, 8, 0), training, validation, **settings)
    assert len(found.held_out) == 12 and 1 < found.best_epoch < 12
    assert generators.mean_nats(found.best, validation) == pytest.approx(min(found.held_out))
    assert generators.mean_nats(found.last, validation) == pytest.approx(found.held_out[-1])
    # A mean over tokens, which leaves the start token out.
    assert generators.mean_nats(found.last, validation) == pytest.approx(
        -log_density(found.last, validation).mean() / 6, rel=1e-5
    )


@pytest.mark.parametrize("recipe", list(board.ADVERSARIAL_STEPS))
def test_recipes_are_the_methods(recipe, tmp_path):
    taken = method_of(recipe)
    assert AdversarialConfig(output_dir=str(tmp_path), **taken).estimator == "reinforce"
    assert {"reward", "lambda_mle", "discriminator_steps", "learning_rate"} <= set(taken)
    assert not {"max_steps", "eval_strategy", "save_steps", "output_dir", "mle_warmup_steps"} & set(taken)
    assert read_recipe(recipe)["discriminator"] == "ngram_cnn"


def _point(nll, entropy, **more):
    common = {"temperature": 1.0, "length": 2, "copy_rate": 0.0, "shared_ngrams": 0.0, "nll_test": 8.0}
    return common | {"nll_oracle": nll, "entropy": entropy, "reverse_kl": nll - entropy, "data_entropy": 5.0} | more


def test_rows_fall_by_nll_oracle_and_gaps_are_at_equal_entropy():
    points = {
        "0/held-out text": {"copy_rate": 0.0, "shared_ngrams": 0.1},
        "0/lookup table": _point(5.0, 0.5, nll_test=None),
        "0/likelihood": {"held_out": [8.0, 7.5, 7.7], "best_epoch": 2, "seconds": 10.0},
        "0/MLE T=1.0": _point(9.0, 7.0),
        "0/MLE T=0.5": _point(7.0, 4.0, temperature=0.5),
        "0/MLE T=0.3": _point(6.0, 2.0, temperature=0.3),
    }
    settings = {"vocab_size": "9", "length": "2", "num_train": "3", "num_samples": "4"}
    text = report.table(points, [0], settings)
    names = [line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| MLE", "| lookup"))]
    assert names == ["| MLE T=1.0", "| MLE T=0.5", "| MLE T=0.3", "| lookup table"] and "infinite" in text
    # Between temperatures: 8.0 at an entropy of 5.5.
    assert report.likelihood_at(points, 0, 5.5) == pytest.approx(8.0)
    assert report.likelihood_at(points, 0, 1.0) is None


def test_a_run_is_kept_and_not_repeated(tmp_path, monkeypatch, capsys):
    sizes = {"num_samples": 40, "num_train": 64, "vocab_size": 30, "width": 8, "length": 5, "epochs": 1}
    command = [f"--{name}={value}" for name, value in sizes.items()]
    command += ["--seeds", "0", "--temperatures", "1.0", "0.5", "--output_dir", str(tmp_path)]
    command += ["--adversarial_scale", "0.01", "--recipes", "reinforce"]
    assert board.main(command) == 0
    table = capsys.readouterr().out.split("Vocabulary 30")[1]
    for name in (
        "MLE T=1.0",
        "MLE T=0.5",
        "MLE, all epochs T=1.0",
        "reinforce T=1.0",
        "reinforce T=0.5",
        "lookup table",
    ):
        assert f"| {name} |" in table
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "oracle_board.md", "oracle_board.png", "seed-0"}
    for name in ("_texts", "generator"):
        monkeypatch.setattr(board.World, name, None)
    assert board.main(command) == 0
    assert capsys.readouterr().out.split("Vocabulary 30")[1] == table
    with pytest.raises(SystemExit, match="other settings"):
        board.main([*command, "--epochs", "2"])
