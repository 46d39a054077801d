import resource

import pytest
import torch

from hf_gpt.training import allocator
from hf_gpt.training.allocator import keeps_freed_memory


def faults_of(steps):
    """Pages that the system had to supply while tensors of 128 MiB came and went."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.empty(2**25).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(allocator._glibc() is None, reason="no glibc")
def test_memory_is_kept_inside_and_given_back_after():
    with keeps_freed_memory():
        with keeps_freed_memory():
            faults_of(1)
        inside = faults_of(8)
    assert inside < faults_of(8) / 2


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with keeps_freed_memory():
        assert torch.ones(3).sum() == 3
