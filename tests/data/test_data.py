import copy
import types

import datasets
import numpy as np
import pytest
import torch

from hf_gpt.data import code_version as code_version_module
from hf_gpt.data import packing
from hf_gpt.data.code_version import code_version
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.packed_dataset import complete_batches, tokenize_and_pack, tokenize_documents, tokenizer_state
from hf_gpt.errors import ConfigError
from hf_gpt.training.monitoring.likelihood import total_nats


TEXTS = ["To be, or not to be", "that is the question:", "Whether 'tis nobler in the mind to suffer", "a", "b c"]


@pytest.fixture
def documents():
    return datasets.Dataset.from_dict({"text": TEXTS})


def test_documents_begin_and_end(tokenizer):
    for ids, text in zip(tokenize_documents(TEXTS, tokenizer), TEXTS, strict=True):
        assert ids[0] == ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[1:-1]) == text


def test_special_tokens_spelled_out_stay_text(tokenizer):
    (ids,) = tokenize_documents(["a <|endoftext|> b"], tokenizer)
    assert tokenizer.eos_token_id not in ids[1:-1]
    assert tokenizer.decode(ids[1:-1]) == "a <|endoftext|> b"


def test_tokenizer_without_an_end_token_is_refused(tokenizer):
    class NoEnd:
        eos_token_id = None

    with pytest.raises(ConfigError, match="end-of-text"):
        tokenize_documents(["a"], NoEnd())


def test_a_stream_gives_the_same_rows(documents, tokenizer):
    in_memory = tokenize_and_pack(documents, tokenizer, 16)
    streamed = tokenize_and_pack(documents.to_iterable_dataset(), tokenizer, 16)
    assert [{name: list(row[name]) for name in row} for row in streamed] == list(in_memory)


def test_complete_batches(documents, tokenizer):
    rows = tokenize_and_pack(documents, tokenizer, 16)
    completed = complete_batches(rows, 4, tokenizer.pad_token_id)
    assert len(completed) % 4 == 0 and len(completed) - len(rows) < 4
    assert completed.select(range(len(rows)))[:] == rows[:]
    assert all(label == -100 for row in list(completed)[len(rows) :] for label in row["labels"])
    assert complete_batches(completed, 4, tokenizer.pad_token_id) is completed


def test_collator(documents, tokenizer):
    rows = tokenize_and_pack(documents, tokenizer, 16)
    batch = PackedRowsCollator()([rows[0], rows[1]])
    assert set(batch) == {"input_ids", "position_ids", "labels"}
    assert all(tensor.shape == (2, 16) and tensor.dtype == torch.int64 for tensor in batch.values())
    assert batch["input_ids"][1].tolist() == rows[1]["input_ids"]


def test_collator_refuses_rows_of_different_lengths():
    with pytest.raises(ValueError, match="one length"):
        PackedRowsCollator()([{"input_ids": [1, 2]}, {"input_ids": [1]}])


@pytest.mark.parametrize("strategy", ["best_fit", "sequential"])
@pytest.mark.parametrize("model_type", ["hf_gpt", "llama"])
def test_packed_documents_do_not_see_each_other(documents, tokenizer, make_model, model_type, strategy):
    # Long enough that no document is cut: then packed and separate rows hold the same targets in the same context.
    model = make_model(model_type, max_position_embeddings=128).eval()
    packed, targets = total_nats(model, tokenize_and_pack(documents, tokenizer, 128), batch_size=2)
    separate = [
        total_nats(model, tokenize_and_pack(documents.select([n]), tokenizer, 128, strategy=strategy), batch_size=1)
        for n in range(len(documents))
    ]
    assert targets == sum(count for _, count in separate)
    assert packed == pytest.approx(sum(nats for nats, _ in separate), rel=1e-6)


@pytest.fixture
def on_disk(documents, tmp_path):
    """Documents whose rows the library keeps on disk."""
    documents.save_to_disk(tmp_path / "documents")
    return datasets.load_from_disk(tmp_path / "documents")


def test_rows_are_made_anew_when_the_code_changes(on_disk, tokenizer, monkeypatch):
    first = tokenize_and_pack(on_disk, tokenizer, 16)
    assert tokenize_and_pack(on_disk, tokenizer, 16).cache_files == first.cache_files != []
    original = packing.pack

    def reversed_rows(*args, **kwargs):
        return {name: rows[:, ::-1] for name, rows in original(*args, **kwargs).items()}

    monkeypatch.setattr("hf_gpt.data.packed_dataset.pack", reversed_rows)
    assert tokenize_and_pack(on_disk, tokenizer, 16)["input_ids"][0] == first["input_ids"][0][::-1]
    monkeypatch.undo()
    assert tokenize_and_pack(on_disk, tokenizer, 16)["input_ids"][:] == first["input_ids"][:]
    # A function further down, and a constant.
    monkeypatch.setattr(packing, "plan_best_fit", packing.plan_sequential)
    monkeypatch.setattr(packing, "IGNORE_INDEX", -7)
    assert tokenize_and_pack(on_disk, tokenizer, 16)["labels"][0][0] == -7


def test_rows_are_made_anew_when_the_tokenizer_changes(on_disk, tokenizer, corpus_text):
    first = tokenize_and_pack(on_disk, tokenizer, 16)
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["question"])
    with_token = tokenize_and_pack(on_disk, changed, 16)
    assert len(tokenizer) in np.ravel(with_token["input_ids"][:])
    other_end = copy.deepcopy(tokenizer)
    other_end.add_special_tokens({"eos_token": "<end>"})
    assert other_end.eos_token_id in np.ravel(tokenize_and_pack(on_disk, other_end, 16)["input_ids"][:])
    other_pad = copy.deepcopy(tokenizer)
    other_pad.pad_token = other_pad.eos_token
    assert tokenizer.pad_token_id not in np.ravel(tokenize_and_pack(on_disk, other_pad, 16)["input_ids"][:])
    assert len({tokenizer_state(each) for each in (tokenizer, changed, other_end, other_pad)}) == 4
    templated = copy.deepcopy(tokenizer)
    templated.chat_template = "{{ messages }}"
    assert tokenizer_state(templated) != tokenizer_state(tokenizer)
    assert tokenize_and_pack(on_disk, tokenizer, 16).cache_files == first.cache_files


def test_the_version_of_code_is_that_of_what_it_does():
    assert code_version(packing) == code_version(packing) != code_version(code_version_module)
    module = types.ModuleType("own")
    versions = set()
    for body in ("return 1", "return 2", "return [n for n in {1, 2}]", "return [n for n in {1, 3}]"):
        exec(f"def make():\n    {body}", module.__dict__)
        versions.add(code_version(module))
    module.limit = 3
    versions.add(code_version(module))
    assert len(versions) == 5
