"""`hf-gpt discriminator`, `generate --discriminator` and `score` on a generator whose faults are known."""

import io
import json
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_gpt.cli import generate as command
from hf_gpt.cli.main import main
from hf_gpt.cli.score import read_texts
from hf_gpt.generation.guidance.guided_generate import GUIDANCE
from hf_gpt.generation.scoring.discriminator import sequence_scores
from hf_gpt.generation.scoring.shared_tokens import tokenizer_difference
from hf_gpt.generation.scoring.texts import TextDiscriminator, encode_texts


SENTENCE = "the king and queen of france are come to see your grace today my lord"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def real_texts() -> list[str]:
    """Words in a fixed order from a random start, which an untrained generator does not know."""
    samples = torch.Generator().manual_seed(0)
    starts = torch.randint(len(WORDS), (300,), generator=samples).tolist()
    return [" ".join((WORDS * 2)[start : start + 6]) for start in starts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, real_texts):
    """A generator that was never trained, and real texts one to a line."""
    from hf_gpt import HfGptConfig, HfGptForCausalLM
    from hf_gpt.data.tokenizer import train_tokenizer

    root = tmp_path_factory.mktemp("discriminator")
    (root / "real.txt").write_text("\n".join(real_texts) + "\n")
    tokenizer = train_tokenizer(real_texts, 300)
    torch.manual_seed(0)
    config = HfGptConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    HfGptForCausalLM(config).save_pretrained(root / "generator" / "model")
    tokenizer.save_pretrained(root / "generator" / "model")
    return root


def train(folder, name, *options) -> int:
    argv = [
        "discriminator",
        "--model_name_or_path",
        str(folder / "generator"),
        "--train_file",
        str(folder / "real.txt"),
    ]
    argv += ["--document_separator", "\\n", "--output_dir", str(folder / name), "--max_new_tokens", "16"]
    return main([*argv, "--device", "cpu", *options])


@pytest.fixture(scope="module")
def discriminator(folder):
    assert (
        train(folder, "discriminator", "--discriminator", "ngram_cnn", "--level", "prefix", "--num_train_epochs", "3")
        == 0
    )
    return folder / "discriminator"


def test_critic_tells_real_from_generated_and_says_how_well(discriminator):
    saved = json.loads((discriminator / "discriminator.json").read_text())
    assert saved["results"]["auc"] > 0.95 and saved["results"]["num_test_texts"] == 30
    assert saved["settings"]["level"] == "prefix"
    assert AutoTokenizer.from_pretrained(discriminator / "model").model_max_length == 17


def test_score_of_lines_rows_and_standard_input_agree(discriminator, folder, real_texts, capsys, monkeypatch):
    path = str(discriminator)
    lines = [real_texts[0], "q7#x%z00vv~kkjj"]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in lines))
    capsys.readouterr()
    assert main(["score", str(folder / "lines.txt"), "--discriminator", path, "--document_separator", "\\n"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    first = [json.loads(line) for line in output.out.splitlines()]
    assert main(["score", str(folder / "rows.jsonl"), "--discriminator", path, "--text_column", "body"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == first
    piped = io.TextIOWrapper(io.BytesIO((folder / "rows.jsonl").read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    output_file = folder / "scores.jsonl"
    argv = ["score", "-", "--discriminator", path, "--text_column", "body", "--output", str(output_file)]
    assert main(argv) == 0
    assert [json.loads(line) for line in output_file.read_text().splitlines()] == first

    assert [row["text"] for row in first] == lines
    assert first[0]["logit"] > 0 > first[1]["logit"] and first[0]["probability"] > 0.5
    model = AutoModelForSequenceClassification.from_pretrained(discriminator / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(discriminator / "model")
    eos = tokenizer.eos_token_id
    ids = torch.tensor([[eos, *tokenizer(lines[0])["input_ids"], eos]])
    assert first[0]["logit"] == pytest.approx(model(ids).logits.item(), abs=1e-3)


def test_per_token_scores_end_at_the_score_of_the_text(discriminator, folder, real_texts, capsys):
    (folder / "one.txt").write_text(real_texts[1] + "\n")
    argv = ["score", str(folder / "one.txt"), "--discriminator", str(discriminator), "--per_token"]
    assert main([*argv, "--format", "jsonl"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["tokens"][-1]["logit"] == pytest.approx(row["logit"], abs=1e-3)
    assert sum(token["change"] for token in row["tokens"]) == pytest.approx(row["logit"], abs=1e-2)
    assert "".join(token["token"] for token in row["tokens"][1:-1]) == real_texts[1]
    assert main([*argv, "--format", "table"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["logit", "real", "text"] and len(table) == 2 + len(row["tokens"])


def test_a_long_text_is_cut_and_said_so(discriminator, folder, capsys):
    (folder / "long.txt").write_text(" ".join(WORDS * 4))
    assert main(["score", str(folder / "long.txt"), "--discriminator", str(discriminator)]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["truncated"] is True and output.err.count("1 of 1 texts") == 1


def test_a_cut_text_that_its_tokenizer_ends_anyway_is_told_too(tmp_path, capsys):
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"vocab_size": len(words), "max_position_embeddings": 8, "num_labels": 1}
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    BertForSequenceClassification(BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    (tmp_path / "texts.txt").write_text("a b a b a b\n\na b a b a b a\n\nb")
    capsys.readouterr()
    argv = ["score", str(tmp_path / "texts.txt"), "--discriminator", str(tmp_path / "bert")]
    assert main([*argv, "--document_separator", "\\n\\n"]) == 0
    output = capsys.readouterr()
    rows = [json.loads(line) for line in output.out.splitlines()]
    assert [row.get("truncated") for row in rows] == [None, True, None]
    assert output.err.count("1 of 3 texts") == 1


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_generate_is_guided(discriminator, folder, capsys, guidance):
    argv = ["generate", str(folder / "generator"), "the king", "--max_new_tokens", "6", "--seed", "1"]
    argv += ["--discriminator", str(discriminator), "--guidance", guidance, "--num_candidates", "3", "--device", "cpu"]
    outputs = []
    for _ in range(2):
        assert main(argv) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and outputs[0].startswith("the king")


def test_guidance_needs_a_discriminator(folder, capsys):
    assert main(["generate", str(folder / "generator"), "the king", "--guidance", "particles"]) == 2
    assert "--guidance particles needs --discriminator" in capsys.readouterr().err


def test_a_rejection_threshold_is_of_rejection_alone(discriminator, folder, capsys):
    argv = ["generate", str(folder / "generator"), "the king", "--discriminator", str(discriminator)]
    assert main([*argv, "--rejection_threshold", "0.9"]) == 2
    assert "--rejection_threshold is for --guidance reject alone" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["generate", "chat", "score"])
def test_what_is_neither_a_folder_nor_on_the_hub_is_named(folder, capsys, command):
    words = {"score": [str(folder / "real.txt"), "--discriminator", "runs/nothing"]}.get(command, ["runs/nothing"])
    assert main([command, *words, *(["the king"] if command == "generate" else [])]) == 2
    assert "there is no folder runs/nothing" in capsys.readouterr().err


@pytest.fixture(scope="module")
def larger(folder):
    """Another language model with the generator's tokenizer."""
    config = AutoConfig.from_pretrained(folder / "generator" / "model", intermediate_size=96)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "larger" / "model")
    AutoTokenizer.from_pretrained(folder / "generator" / "model").save_pretrained(folder / "larger" / "model")
    return folder / "larger"


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_a_language_model_guides(larger, folder, capsys, guidance):
    argv = ["generate", str(folder / "generator"), "the king", "--max_new_tokens", "6", "--seed", "1"]
    argv += ["--discriminator", str(larger), "--guidance", guidance, "--num_candidates", "3", "--device", "cpu"]
    assert main([*argv, "--guidance_block", "2", "--num_return_sequences", "2", "--temperature", "0.9"]) == 0
    assert [text[:8] for text in capsys.readouterr().out.split("\n----\n")] == ["the king"] * 2


@pytest.mark.parametrize("kind", ["language model", "particles", "stepwise"])
def test_who_judges_beginnings_or_tokens_shares_the_tokenizer(discriminator, larger, folder, capsys, kind):
    from hf_gpt.data.tokenizer import train_tokenizer

    path = {"language model": larger}.get(kind, discriminator)
    other = folder / f"other {kind}"
    (other / "model").mkdir(parents=True)
    for file in (path / "model").iterdir():
        (other / "model" / file.name).write_bytes(file.read_bytes())
    train_tokenizer(["of the king"], 262).save_pretrained(other / "model")
    argv = ["generate", str(folder / "generator"), "the king", "--discriminator", str(other), "--device", "cpu"]
    argv += ["--guidance", "resample" if kind == "language model" else kind]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "another tokenizer" in error and "hf-gpt discriminator" in error and "Traceback" not in error


@pytest.mark.parametrize("options", [["--temperature", "0"], ["--seed", "3", "--top_k", "20"]])
def test_generate_prints_the_same_text_by_fast_steps(folder, capsys, monkeypatch, options):
    argv = ["generate", str(folder / "generator"), "the king", "--max_new_tokens", "20", "--device", "cpu", *options]
    outputs, asked = [], []
    for taken in (None, False):
        inner = command.is_fast
        with monkeypatch.context() as patch:
            patch.setattr(
                command, "is_fast", lambda model, inner=inner, taken=taken: asked.append(inner(model)) or taken is None
            )
            assert main(argv) == 0
        outputs.append(capsys.readouterr().out)
    assert asked == [True, True] and outputs[0] == outputs[1] and len(outputs[0]) > 20


def test_best_of_n_writes_more_real_texts_than_one(discriminator, folder, capsys):
    model = AutoModelForSequenceClassification.from_pretrained(discriminator / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(discriminator / "model")
    means = []
    for number in ("1", "12"):
        argv = ["generate", str(folder / "generator"), "the king", "--max_new_tokens", "6", "--seed", "1"]
        argv += ["--num_return_sequences", "8", "--guidance", "best_of_n", "--device", "cpu"]
        assert main([*argv, "--discriminator", str(discriminator), "--num_candidates", number]) == 0
        texts = capsys.readouterr().out.split("\n----\n")
        assert len(texts) == 8
        means.append(sequence_scores(model, *encode_texts(tokenizer, texts)[:2]).mean().item())
    assert means[1] > means[0] + 0.1


def test_a_critic_from_the_generators_trunk(folder, capsys):
    assert (
        train(folder, "trunk", "--num_train_epochs", "1", "--max_train_samples", "60", "--learning_rate", "1e-2") == 0
    )
    assert type(AutoModelForSequenceClassification.from_pretrained(folder / "trunk" / "model")).__name__ == (
        "HfGptForSequenceClassification"
    )


def test_slips_are_answered_in_one_line(discriminator, larger, folder, capsys, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"txt": 3}\n')
    score = ["--discriminator", str(discriminator)]
    cases = {
        "no text found": ["score", str(tmp_path / "empty.txt"), *score],
        "bad.jsonl, line 2": ["score", str(tmp_path / "bad.jsonl"), *score],
        "No such file": ["score", str(tmp_path / "missing.txt"), *score],
        "there is no folder ./nowhere": ["score", str(folder / "real.txt"), "--discriminator", "./nowhere"],
        "is a language model": ["score", str(folder / "real.txt"), "--discriminator", str(larger)],
        "is not empty": [
            "discriminator",
            "--model_name_or_path",
            "x",
            "--train_file",
            "y",
            "--output_dir",
            str(discriminator),
        ],
        "there is no discriminator 'cnn'": [
            *[
                "discriminator",
                "--model_name_or_path",
                str(folder / "generator"),
                "--train_file",
                str(folder / "real.txt"),
            ],
            *["--output_dir", str(tmp_path / "new"), "--discriminator", "cnn"],
        ],
    }
    for message, argv in cases.items():
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert not (tmp_path / "new").exists()


def test_a_discriminator_with_another_tokenizer_reads_text(discriminator, folder):
    from hf_gpt.data.tokenizer import train_tokenizer

    model = AutoModelForSequenceClassification.from_pretrained(discriminator / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(discriminator / "model")
    other = train_tokenizer(["of the king"], 262)
    assert tokenizer_difference(tokenizer, other) and tokenizer_difference(tokenizer, tokenizer) is None
    texts = ["the king and queen", "come to see"]
    rows = [[other.eos_token_id, *other(text)["input_ids"], other.eos_token_id] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [other.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    bridged = sequence_scores(TextDiscriminator(model, tokenizer, other), ids, mask)
    torch.testing.assert_close(bridged, sequence_scores(model, *encode_texts(tokenizer, texts)[:2]))


def test_read_texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("one\n\ntwo\n")
    assert list(read_texts(str(path))) == ["one\n\ntwo"]
    assert list(read_texts(str(path), document_separator="\\n\\n")) == ["one", "two"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 at byte 0"):
        list(read_texts(str(path)))
    rows = tmp_path / "texts.jsonl"
    texts = ["a line\u2028another", "and\x85so on"]
    rows.write_bytes("\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts).encode())
    assert list(read_texts(str(rows))) == texts


def test_temperature_0_is_for_guidance_that_does_not_draw(larger, folder, capsys):
    argv = ["generate", str(folder / "generator"), "the king", "--max_new_tokens", "6", "--device", "cpu"]
    argv += ["--discriminator", str(larger), "--temperature", "0", "--guidance"]
    outputs = []
    for seed in ("1", "2", "3"):
        assert main([*argv, "stepwise", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert len(set(outputs)) == 1
    assert main([*argv, "resample"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --temperature 0") and "--guidance stepwise" in error


def test_objective_residual_makes_one_model_of_both(folder, capsys):
    assert (
        train(folder, "residual", "--discriminator", "ngram_cnn", "--num_train_epochs", "3", "--objective", "residual")
        == 0
    )
    printed = capsys.readouterr().out
    assert "the discriminator lowers it" in printed and f"generate {folder / 'residual'}" in printed
    saved = json.loads((folder / "residual" / "model" / "residual.json").read_text())
    found = saved["results"]["residual"]
    assert saved["max_new_tokens"] == 16 and saved["prompt_tokens"] == 0
    assert found["gain_low"] > 1 and found["perplexity"] < found["base_perplexity"]
    assert AutoModelForCausalLM.from_pretrained(folder / "residual" / "model")
    assert main(["generate", str(folder / "residual"), "the king", "--device", "cpu", "--max_new_tokens", "8"]) == 0


def test_objective_residual_needs_whole_texts(folder, capsys):
    assert train(folder, "prefixes", "--objective", "residual", "--level", "prefix") == 2
    assert "whole texts" in capsys.readouterr().err and not (folder / "prefixes").exists()
