import json

import pytest
import torch


@pytest.fixture(scope="session")
def tokenizer():
    """Of the tiny models."""
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer(["the man runs near a red bus . two dogs sit on the grass by the street ."], 300)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tokenizer):
    """Two tiny generators and a discriminator, each with the same tokenizer, by name."""
    import transformers

    import hf_gpt
    from hf_gpt.adversarial.discriminator.held_out_auc import FILE, HeldOutAuc

    assert hf_gpt.__version__
    found = {}
    kinds = {
        "one": "AutoModelForCausalLM",
        "two": "AutoModelForCausalLM",
        "discriminator": "AutoModelForSequenceClassification",
    }
    for seed, (name, auto_class) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        config = transformers.AutoConfig.for_model(
            "hf_gpt",
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=192,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.3,
            num_labels=1,
        )
        found[name] = tmp_path_factory.mktemp(name) / name
        getattr(transformers, auto_class).from_config(config).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    known = HeldOutAuc(0.8, 0.75, 0.85, 300).to_dict()
    (found["discriminator"] / FILE).write_text(json.dumps(known), encoding="utf-8")
    return found


@pytest.fixture(scope="session")
def text_discriminator(tmp_path_factory):
    """The folder of a tiny BERT with a tokenizer of its own."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "man", "dogs", "two", "red", "bus"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    own = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **names)
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=1,
    )
    folder = tmp_path_factory.mktemp("bert")
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def writer(folders):
    """The first generator."""
    from hf_gpt.app.sessions import Writer
    from hf_gpt.evaluation.tasks.loading import open_candidate

    return Writer(open_candidate("one", str(folders["one"]), device="cpu"))


@pytest.fixture(scope="session")
def judge(folders):
    """The discriminator."""
    from hf_gpt.app.judge import open_judge

    return open_judge(str(folders["discriminator"]), "cpu")
