import datasets
import pytest
import torch

from hf_gpt.training.collators import PackedRowsCollator
from hf_gpt.training.data import complete_batches, tokenize_and_pack, tokenize_documents
from hf_gpt.training.errors import ConfigError
from hf_gpt.training.likelihood import total_nats


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
