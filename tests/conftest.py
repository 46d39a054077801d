import os

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and threads that wait for each other are slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks():
    """Files of tests need not outlast a loss of power. Who asks for it looks at the calls instead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def corpus_text() -> str:
    """The first few thousand characters of the built-in corpus."""
    from hf_gpt.data.corpus import CORPORA

    return (CORPORA / "tinyshakespeare.txt").read_text(encoding="utf-8")[:6000]


@pytest.fixture
def corpus_file(tmp_path, corpus_text):
    path = tmp_path / "corpus.txt"
    path.write_text(corpus_text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(corpus_text):
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer([corpus_text], 320)


@pytest.fixture
def make_model(tokenizer):
    """Makes a tiny model with the same weights each time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(model_type="hf_gpt", **overrides):
        settings = {
            "vocab_size": 320,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**settings, **overrides}))

    return make


@pytest.fixture
def encoder(tmp_path, corpus_text):
    """Folder of a tiny BERT with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator([corpus_text.lower()], trainers.WordLevelTrainer(vocab_size=400, special_tokens=special))
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=32, **names)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(fast), max_position_embeddings=32, **sizes))
    model.save_pretrained(tmp_path / "encoder")
    fast.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"
