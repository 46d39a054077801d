import json
import os
import random
from pathlib import Path

import pytest
import torch


WORDS = ["a", "the", "man", "dog", "cat", "train", "bus", "sits", "runs", "stands", "eats", "on", "near", "by"]
WORDS += ["red", "blue", "small", "big", "street", "table", "grass", "bench"]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    chooser = random.Random(0)
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(5, 9))) + " ." for _ in range(200)]


@pytest.fixture(scope="session")
def tokenizer(texts):
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer(["\n".join(texts)], 300)


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory, tokenizer):
    """Saves a tiny model of any type and head, with its tokenizer; the same weights for the same seed."""
    import transformers

    import hf_gpt

    assert hf_gpt.__version__

    def make(name, auto_class="AutoModelForCausalLM", seed=0, model_type="hf_gpt", **overrides):
        settings = {
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 96,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "initializer_range": 0.3,
        }
        torch.manual_seed(seed)
        config = transformers.AutoConfig.for_model(model_type, **{**settings, **overrides})
        model = getattr(transformers, auto_class).from_config(config)
        folder = tmp_path_factory.mktemp(name) / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def one(make_folder):
    return make_folder("one")


@pytest.fixture(scope="session")
def two(make_folder):
    return make_folder("two", seed=1)


@pytest.fixture(scope="session")
def discriminator(make_folder):
    return make_folder("discriminator", "AutoModelForSequenceClassification", num_labels=1)


@pytest.fixture
def candidate(one):
    from hf_gpt.evaluation.tasks.loading import open_candidate

    return open_candidate("one", str(one), device="cpu", dtype="float32")


@pytest.fixture
def data(tmp_path, texts):
    """A folder with small files in the forms of the built-in tasks, and tasks on them."""
    folder = tmp_path / "data"
    folder.mkdir()

    def rows(name, entries):
        (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")

    (folder / "lines.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    rows("choices.jsonl", [{"q": t, "options": [t, u, "red"], "gold": n % 3} for n, (t, u) in enumerate(_pairs(texts))])
    rows("classes.jsonl", [{"text": t, "label": n % 2} for n, t in enumerate(texts[:30])])
    rows("pairs.jsonl", [{"en": t, "de": [u]} for t, u in _pairs(texts)])
    (folder / "choices.yaml").write_text(
        "kind: multiple_choice\nfile: choices.jsonl\nprompt: '{q}'\nchoices: options\nanswer: gold\n"
    )
    (folder / "classes.yaml").write_text(
        "kind: classification\nfile: classes.jsonl\nlabel: label\nlabels: [red, blue]\nprompt: '{text} :'\n"
    )
    (folder / "pairs.yaml").write_text(
        "kind: translation\nfile: pairs.jsonl\nprompt: '{en} ='\ntarget: de\nmax_new_tokens: 6\n"
    )
    (folder / "free.yaml").write_text(
        "kind: unconditional\nfile: lines.txt\nmax_new_tokens: 12\ntemperature: 1.0\nsamples: 40\n"
        "metrics: {ngram_bleu: , self_bleu: , tfidf_test: {resamples: 20}}\n"
    )
    (folder / "lm.yaml").write_text("kind: language_modelling\nfile: lines.txt\n")
    return folder


def _pairs(texts, count=24):
    return list(zip(texts[:count], texts[count : 2 * count], strict=True))


@pytest.fixture
def read_data_folder():
    """The folder of the shared data, or the test is skipped."""
    folder = Path(os.environ.get("HF_GPT_DATA", Path(__file__).parents[3] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("the data sets are not there; set HF_GPT_DATA to their folder")
    return folder
