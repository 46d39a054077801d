"""Scores that are no numbers are an error that names the discriminator, wherever they are used."""

import json

import pytest
import torch

from hf_gpt.generation.guidance.guided_generate import guided_generate
from hf_gpt.generation.guidance.selection import best_of, reject, resample, resample_systematically
from hf_gpt.generation.scoring.discriminator import ScoreError, prefix_scores, sequence_scores
from tests.generation.test_shared_tokens import make_discriminator, make_generator
from tests.sampling_options import grow_particles


def damaged():
    discriminator = make_discriminator()
    with torch.no_grad():
        discriminator.score.weight.fill_(torch.nan)
    return discriminator


@pytest.mark.parametrize("guidance", ["resample", "reject", "best_of_n", "particles", "stepwise"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, "weights"])
def test_no_guidance_chooses_by_them(guidance, value):
    def strange(sequences, attention_mask):
        return torch.full((len(sequences),), value)

    discriminator = damaged() if value == "weights" else strange
    named = "HfGptForSequenceClassification" if value == "weights" else "strange"
    with pytest.raises(ScoreError, match=rf"{named}.* gave \d+ of \d+ scores that are not finite"):
        make_generator().generate(
            torch.tensor([[5, 6]]),
            do_sample=True,
            max_new_tokens=4,
            pad_token_id=0,
            custom_generate=guided_generate,
            discriminator=discriminator,
            guidance=guidance,
        )
    with pytest.raises(ScoreError, match=named):
        grow_particles(make_generator(), discriminator, bos_token_id=5, max_new_tokens=3, num_particles=2)


@pytest.mark.parametrize("guidance", ["resample", "reject", "best_of_n", "particles", "stepwise"])
@pytest.mark.parametrize(
    ("given", "named"),
    [(lambda n: torch.zeros(n, 2), r"shape \(\d+, 2\)"), (lambda n: None, "NoneType"), (lambda n: 0.5, r"shape \(\)")],
)
def test_a_function_that_gives_something_else_is_named(guidance, given, named):
    def strange(sequences, attention_mask):
        return given(len(sequences))

    options = {"do_sample": True, "max_new_tokens": 4, "pad_token_id": 0, "num_candidates": 3, "guidance": guidance}
    options |= {"custom_generate": guided_generate, "discriminator": strange}
    with pytest.raises(ScoreError, match=f"strange gave {named} for .* one logit for each"):
        make_generator().generate(torch.tensor([[5, 6]]), **options)


@pytest.mark.parametrize("guidance", ["resample", "reject", "best_of_n", "particles", "stepwise"])
def test_columns_and_lists_of_logits_are_taken(guidance):
    def column(sequences, attention_mask):
        return sequences.float().mean(1, keepdim=True)

    def numbers(sequences, attention_mask):
        return sequences.float().mean(1).tolist()

    found = []
    for function in (column, numbers):
        torch.manual_seed(0)
        options = {"do_sample": True, "max_new_tokens": 4, "pad_token_id": 0, "num_candidates": 3}
        options |= {"custom_generate": guided_generate, "discriminator": function, "guidance": guidance}
        found.append(make_generator().generate(torch.tensor([[5, 6]]), **options).tolist())
    assert found[0] == found[1]


def test_minus_infinity_rules_out_where_a_function_says_so():
    def wants_a_7(sequences, attention_mask):
        return torch.where((sequences == 7).any(1), 0.0, -torch.inf)

    found = make_generator().generate(
        torch.tensor([[7, 6]]),
        do_sample=True,
        max_new_tokens=4,
        pad_token_id=0,
        custom_generate=guided_generate,
        discriminator=wants_a_7,
        guidance="best_of_n",
    )
    assert found.shape == (1, 6)


@pytest.mark.parametrize("score", [sequence_scores, prefix_scores])
def test_scores_name_the_damaged_weights_and_the_folder(score, tmp_path):
    discriminator = damaged()
    discriminator.save_pretrained(tmp_path / "discriminator")
    discriminator = type(discriminator).from_pretrained(tmp_path / "discriminator")
    with pytest.raises(ScoreError, match=r"Its weights are damaged \(score.weight") as error:
        score(discriminator, torch.tensor([[3, 4, 5]]))
    assert str(tmp_path / "discriminator") in str(error.value)
    discriminator = make_discriminator()
    with torch.no_grad():
        discriminator.score.weight.fill_(3e38)
    with pytest.raises(ScoreError, match="overflow"):
        score(discriminator, torch.tensor([[3, 4, 5]]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pure_functions_choose_nothing_either(value):
    scores = torch.tensor([[0.0, value, 1.0]])
    for choose in (best_of, resample, lambda x: resample_systematically(x, 2), reject, lambda x: reject(x, 0.5)):
        with pytest.raises(ValueError, match="numbers or minus infinity"):
            choose(scores)
    assert best_of(torch.tensor([[0.0, -torch.inf, 1.0]])).tolist() == [2]


def test_hf_gpt_score_says_so(tmp_path, capsys):
    from hf_gpt.cli.score import main
    from hf_gpt.data.tokenizer import train_tokenizer

    discriminator = damaged()
    discriminator.save_pretrained(tmp_path / "discriminator")
    train_tokenizer(["a text of some words"] * 30, 280).save_pretrained(tmp_path / "discriminator")
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "a text"}) + "\n")
    output = tmp_path / "scores.jsonl"
    arguments = [
        str(tmp_path / "texts.jsonl"),
        "--discriminator",
        str(tmp_path / "discriminator"),
        "--output",
        str(output),
    ]
    assert main(arguments) == 2
    assert "HfGptForSequenceClassification" in capsys.readouterr().err and not output.exists()


def test_pages_say_so(tmp_path):
    from hf_gpt.app.judge import Judge
    from hf_gpt.app.work import Work
    from hf_gpt.cli.evaluation.page import _heatmaps
    from hf_gpt.data.tokenizer import train_tokenizer

    discriminator, tokenizer = damaged(), train_tokenizer(["a text of some words"] * 30, 280)
    said = Work({}, Judge(discriminator, tokenizer)).verdict("session", "a text")
    assert "HfGptForSequenceClassification gave" in said and "Its weights are damaged" in said
    samples = {"samples": [{"task": "one", "texts": {"model": "a text"}}]}
    (section,) = _heatmaps(samples, (discriminator, tokenizer))
    assert "HfGptForSequenceClassification gave" in str(section)
