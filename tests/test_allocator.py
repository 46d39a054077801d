import resource
import subprocess
import sys

import pytest
import torch

from hf_gpt import allocator
from hf_gpt.allocator import keeps_freed_memory


# In a process of its own, whose heap nobody has used before, and without huge pages, of which one fault supplies 512.
MEASURE = """
import ctypes, resource, torch
from hf_gpt.allocator import keeps_freed_memory
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

def faults_of(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.empty(2**25).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1])

outside = faults_of(16)
with keeps_freed_memory():
    with keeps_freed_memory():
        # The heap grows until blocks fit between what else lies in it.
        faults_of(16)
    inside, kept = faults_of(16), resident()
print(outside, inside, kept - resident())
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="no glibc")
def test_memory_is_kept_inside_and_given_back_after():
    """Pages that the system has to supply while tensors of 128 MiB come and go."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    outside, inside, given_back = map(int, done.stdout.split())
    a_tensor = 2**27 // resource.getpagesize()
    assert inside < outside / 2 and given_back > a_tensor / 2


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with keeps_freed_memory():
        assert torch.ones(3).sum() == 3
