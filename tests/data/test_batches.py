"""Rows to batches, and the order in which examples of similar length come."""

import torch

from hf_gpt.data.collators import PaddingCollator
from hf_gpt.data.samplers import LengthGroups


def test_labels_are_padded_by_what_does_not_count():
    rows = [
        {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [5, 6, 7]},
        {"input_ids": [8], "attention_mask": [1], "labels": [8]},
    ]
    batch = PaddingCollator(pad_token_id=2, pad_to_multiple_of=4)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [8, 2, 2, 2]]
    assert batch["labels"].tolist() == [[5, 6, 7, -100], [8, -100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_each_epoch_has_an_order_of_its_own_whatever_happened_before():
    lengths = [3 + number % 17 for number in range(200)]

    def orders(seed: int) -> list[list[int]]:
        sampler = LengthGroups(lengths, batch_size=4, seed=seed)
        found = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            torch.rand(epoch + 1)
            found.append(list(sampler))
        return found

    first = orders(0)
    assert all(sorted(order) == list(range(200)) for order in first)
    assert first[0] != first[1] != first[2] != first[0]
    assert orders(0) == first
    assert orders(1)[0] != first[0]
