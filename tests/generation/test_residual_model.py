"""A generator with its discriminator as one model: saved, opened, sampled from, evaluated, pushed."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_gpt import ResidualLanguageModel, make_discriminator
from hf_gpt.cli.main import main
from hf_gpt.errors import CheckpointError
from hf_gpt.generation.scoring.texts import TextDiscriminator


@pytest.fixture(params=["ngram_cnn", "encoder"])
def saved(request, tmp_path, make_model, tokenizer):
    """Folder of a pair, with a discriminator of the generator's tokens or one with a tokenizer of its own."""
    generator = make_model(max_position_embeddings=64).eval()
    kind = str(request.getfixturevalue("encoder")) if request.param == "encoder" else request.param
    discriminator = make_discriminator(kind, generator, processing_class=tokenizer).eval()
    metrics = {"prompt_tokens": 0, "max_new_tokens": 12}
    ResidualLanguageModel(generator, discriminator, tokenizer, metrics).save_pretrained(tmp_path / "pair")
    return tmp_path / "pair", request.param


@pytest.fixture
def held_out(tmp_path, corpus_text):
    path = tmp_path / "held_out.txt"
    path.write_text("\n\n".join([line for line in corpus_text.splitlines() if len(line) > 20][:20]), encoding="utf-8")
    return path


def test_it_opens_as_saved_and_samples_by_the_discriminator(saved):
    path, kind = saved
    pair = ResidualLanguageModel.from_pretrained(path)
    assert isinstance(pair.discriminator, TextDiscriminator) == (kind == "encoder")
    assert pair.metrics == {"format": 1, "prompt_tokens": 0, "max_new_tokens": 12}
    assert not pair.generator.training and not pair.discriminator.training
    ids = pair.tokenizer("the king", return_tensors="pt")
    torch.manual_seed(0)
    found = pair.generate(**ids, max_new_tokens=8, num_candidates=6, return_dict_in_generate=True)
    assert found.candidate_scores.shape == (1, 6) and found.candidate_scores.std() > 0
    # Transformers alone samples from it too, by the code in its folder.
    model = AutoModelForCausalLM.from_pretrained(path)
    torch.manual_seed(0)
    options = {"max_new_tokens": 8, "num_candidates": 6, "custom_generate": str(path), "trust_remote_code": True}
    assert model.generate(**ids, **options).tolist() == found.sequences.tolist()


def test_the_command_samples_from_it_and_takes_other_guidance(saved, capsys):
    path, _ = saved
    argv = ["generate", str(path), "the king", "--max_new_tokens", "6", "--seed", "1", "--device", "cpu"]
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("the king")
    assert main([*argv, "--guidance", "best_of_n", "--num_candidates", "3"]) == 0
    assert main([*argv, "--temperature", "0"]) == 2
    assert "above 0" in capsys.readouterr().err


def test_the_task_has_the_likelihood_with_and_without_the_discriminator(saved, held_out, tmp_path, capsys):
    path, _ = saved
    plain = tmp_path / "plain"
    AutoModelForCausalLM.from_pretrained(path).save_pretrained(plain)
    AutoTokenizer.from_pretrained(path).save_pretrained(plain)
    argv = ["eval", f"q={plain}", f"pair={path}", "--tasks", "residual_language_modelling", "--data", str(held_out)]
    argv += ["--samples", "64", "--bootstrap", "50", "--device", "cpu", "--output_dir", str(tmp_path / "eval")]
    assert main(argv) == 0
    rows = json.loads((tmp_path / "eval" / "results.json").read_text())["results"]
    value = {(row["model"], row["metric"]): row["value"] for row in rows}
    assert value["q", "perplexity"] == value["q", "base_perplexity"] == value["pair", "base_perplexity"]
    assert value["q", "gain"] == 0 != value["pair", "gain"]
    assert value["pair", "gain_lower_bound"] <= value["pair", "gain"] <= value["pair", "gain_upper_bound"]
    assert "Nats a text gained by the discriminator" in capsys.readouterr().out


def test_the_task_refuses_models_that_are_no_pair(saved, held_out, tmp_path, capsys):
    path, _ = saved
    argv = ["eval", str(path), "--tasks", "residual_language_modelling", "--data", str(held_out)]
    argv += ["--output_dir", str(tmp_path / "eval"), "--device", "cpu"]
    (path / "residual.json").unlink()
    assert main(argv) == 2
    assert "--objective residual" in capsys.readouterr().err


def test_what_is_no_pair_is_refused(saved, tmp_path):
    path, _ = saved
    (path / "residual.json").write_text("[")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ResidualLanguageModel.from_pretrained(path)
    (path / "residual.json").unlink()
    with pytest.raises(CheckpointError, match="no residual model"):
        ResidualLanguageModel.from_pretrained(path)
    with pytest.raises(CheckpointError, match="no folder"):
        ResidualLanguageModel.from_pretrained(tmp_path / "nowhere" / "else")


def test_a_discriminator_of_other_tokens_or_labels_is_refused(make_model, tokenizer):
    generator = make_model()
    with pytest.raises(ValueError, match="2 labels"):
        ResidualLanguageModel(generator, make_discriminator("ngram_cnn", generator, num_labels=2), tokenizer)
    with pytest.raises(ValueError, match="tokens"):
        ResidualLanguageModel(generator, make_discriminator("ngram_cnn", generator, vocab_size=100), tokenizer)
