"""One arena for all threads, and what was freed goes back. In processes of their own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not glibc: it keeps no arenas"
)
PROGRAM = """
import ctypes, sys, tempfile, threading
from gps_denied_inference.runtimes import memory

libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
MIB = 1 << 20

def arenas():
    with tempfile.NamedTemporaryFile() as file:
        stream = libc.fopen(file.name.encode(), b"w")
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        return file.read().count(b"<heap ")

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // MIB

def take(size):
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    return block

"""
THREADS = """
gate = threading.Barrier(7)
def busy():
    block = take(100_000)
    gate.wait()
    libc.free(block)
threads = [threading.Thread(target=busy) for _ in range(6)]
before = arenas()
[t.start() for t in threads]
gate.wait()
print(arenas() - before)
"""


def ran(code: str, **environment: str) -> list[int]:
    names = ("MALLOC_", "GLIBC_TUNABLES")
    own = {k: v for k, v in os.environ.items() if not k.startswith(names)}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        capture_output=True, text=True, check=True, env={**own, **environment},
    )  # fmt: skip
    return [int(word) for word in result.stdout.split()]


def test_threads_share_one_arena() -> None:
    (more,) = ran("memory.keep_to_one_arena()" + THREADS)
    (usual,) = ran(THREADS)
    assert (more, usual > 2) == (0, True)


@pytest.mark.parametrize(
    "environment", [{"MALLOC_ARENA_MAX": "8"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=8"}]
)
def test_what_the_user_says_of_arenas_stays(environment: dict[str, str]) -> None:
    (more,) = ran("memory.keep_to_one_arena()" + THREADS, **environment)
    assert more > 2


def test_what_was_freed_between_blocks_that_live_on_goes_back() -> None:
    code = """
memory.keep_to_one_arena()
large, small = [], []
for _ in range(100):
    large.append(take(MIB))
    small.append(take(20_000))
full = resident()
[libc.free(block) for block in large]
kept = resident()
memory.give_back_freed()
print(full, kept, resident())
"""
    full, kept, left = ran(code)
    assert kept > full - 20
    assert left < full - 80


def test_what_engines_took_goes_back_whole_where_they_were_loaded_apart() -> None:
    code = """
memory.keep_to_one_arena()
large, small = [], []
with memory.apart_from_frames():
    for _ in range(100):
        large.append(take(MIB))
        small.append(take(20_000))
full = resident()
[libc.free(block) for block in large]
left = resident()
again = [take(MIB) for _ in range(40)]  # of frames: their memory is kept
[libc.free(block) for block in again]
print(full, left, resident())
"""
    full, left, kept = ran(code)
    assert left < full - 80
    assert kept > left + 20


def test_a_user_s_thresholds_stay_while_engines_are_loaded() -> None:
    code = """
memory.keep_to_one_arena()
with memory.apart_from_frames():
    blocks = [(take(MIB), take(20_000)) for _ in range(100)]
full = resident()
[libc.free(block) for block, _ in blocks]
print(full, resident())
"""
    full, left = ran(
        code, MALLOC_TRIM_THRESHOLD_=str(1 << 30), MALLOC_MMAP_THRESHOLD_=str(16 << 20)
    )
    assert left > full - 20
