"""Freed memory: it stays while training lasts, and goes back afterwards."""

import json
import platform
import subprocess
import sys

import pytest
import torch

from minigpt.memory import keep_memory

TAKE_AND_FREE = """
import json, re, resource
from pathlib import Path
import torch
from minigpt.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(25, 1 << 20)  # 100 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def fewest():
    return min(faults() for _ in range(40))  # glibc needs up to ten to settle

before = [fewest(), resident()]
with keep_memory(torch.device("cpu")) as sentence:
    during = [fewest(), resident()]
print(json.dumps({"before": before, "during": during, "after": resident(), "sentence": sentence}))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_memory_is_taken_from_the_kernel_once_and_given_back_at_the_end():
    done = subprocess.run([sys.executable, "-c", TAKE_AND_FREE], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["sentence"] == "malloc keeps freed memory for the next step"
    assert seen["before"][0] > 50 and seen["during"][0] < 20  # a page, or one of 2 MB, a fault
    assert seen["during"][1] > seen["before"][1] + 50 > seen["after"]  # megabytes


def test_a_gpu_has_an_allocator_of_its_own():
    with keep_memory(torch.device("meta")) as sentence:
        assert "allocator" in sentence
