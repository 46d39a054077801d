"""Our log-likelihood accuracies against those of the LM evaluation harness: `make check-lm-eval`."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.clients.records import record


pytest.importorskip("lm_eval", reason="make check-lm-eval installs the harness in an environment of its own")

DATA = Path(os.environ.get("HF_GPT_DATA", Path(__file__).parents[2] / "../shared/data")) / "zeroshot/multiple_choice"
WORDS = ["the", "man", "runs", "near", "a", "dog", ".", "cat", "sits", "on", "red", "bus", "two", "small", "trains"]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    """Real questions where they are there, made-up ones elsewhere."""
    file = DATA / "copa.jsonl"
    if file.exists():
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    chooser = random.Random(0)
    phrases = [" ".join(chooser.choices(WORDS, k=chooser.randint(2, 9))) for _ in range(300)]
    return [
        {"query": phrases[n], "choices": phrases[n + 100 : n + 300 : 100], "gold": chooser.randint(0, 1)}
        for n in range(100)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    """A tiny model whose tokenizer puts the begin token before a text, as ours do and as the harness then does too."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModelForCausalLM

    import hf_gpt
    from hf_gpt.data.tokenizer import train_tokenizer

    assert hf_gpt.__version__
    tokenizer = train_tokenizer(["\n".join(text for row in rows for text in (row["query"], *row["choices"]))], 400)
    begin = tokenizer.eos_token if tokenizer.bos_token is None else tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.convert_tokens_to_ids(begin))]
    )
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "hf_gpt",
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    path = tmp_path_factory.mktemp("model")
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory, folder, rows):
    """Results of `hf-gpt eval` for the same questions as a task of ours and as one of the harness, and both records."""
    from hf_gpt.cli.main import main

    position = tmp_path_factory.mktemp("tasks")
    (position / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (position / "ours.yaml").write_text(
        "kind: multiple_choice\nfile: rows.jsonl\nprompt: '{query}'\nchoices: choices\nanswer: gold\n"
    )
    (position / "theirs.yaml").write_text(
        f"""task: theirs
dataset_path: json
dataset_kwargs:
  data_files: {{test: {position / "rows.jsonl"}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
    )
    output = position / "out"
    tasks = [str(position / "ours.yaml"), str(position / "theirs.yaml")]
    argv = [str(folder), "--tasks", *tasks, "--output_dir", str(output), "--device", "cpu", "--dtype", "float32"]
    assert main(["eval", *argv]) == 0
    return json.loads((output / "results.json").read_text())


def test_accuracies_and_their_intervals_agree(both, record_property):
    metrics = {(row["task"], row["metric"]): row for row in both["results"]}
    for ours, theirs in (("accuracy", "acc"), ("accuracy_norm", "acc_norm")):
        first, second = metrics["ours", ours], metrics["lm_eval:theirs", theirs]
        assert first["value"] == pytest.approx(second["value"], abs=1e-9)
        assert (first["low"], first["high"]) == pytest.approx((second["low"], second["high"]))
        assert first["items"] == second["items"] == 100
    keep(record_property, "accuracy, plain and by length, and intervals", "equal to 1e-9 over 100 questions")


def keep(record_property, compared, metric):
    record(record_property, "lm-eval", "lm-eval", compared, metric, package="lm_eval")


def test_log_likelihoods_agree(folder, rows, record_property):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from hf_gpt.evaluation.tasks.choices import score_continuations
    from hf_gpt.evaluation.tasks.loading import open_candidate

    candidate = open_candidate("m", str(folder), device="cpu", dtype="float32")
    pairs = [(row["query"], f" {choice}") for row in rows for choice in row["choices"]]
    # Blanks at the end of a context, and no context at all.
    pairs += [("the man ", "runs near"), ("", "a red bus")]
    harness = HFLM(pretrained=candidate.model, tokenizer=candidate.tokenizer, batch_size=8)
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    theirs = harness.loglikelihood(requests, disable_tqdm=True)
    ours = score_continuations(candidate, pairs)
    assert np.array([one.logp for one in ours]) == pytest.approx(np.array([logp for logp, _ in theirs]), abs=1e-3)
    assert [one.greedy for one in ours] == [greedy for _, greedy in theirs]
    difference = max(abs(one.logp - logp) for one, (logp, _) in zip(ours, theirs, strict=True))
    keep(record_property, f"log-likelihoods of {len(pairs)} answers", f"max difference {difference:.1e}")


def test_an_unknown_task_is_answered_in_one_line(folder, tmp_path, capsys):
    from hf_gpt.cli.main import main

    argv = [
        "eval",
        str(folder),
        "--tasks",
        "lm_eval:helaswag",
        "--output_dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    assert main(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "did you mean hellaswag" in error
