"""How torch's threads and its arithmetic are set while work on a device lasts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def one_thread_a_image(device: torch.device) -> Iterator[int]:
    """How many images to work on at once, each on one of torch's threads; while the block lasts it has no more.

    Layers of one image are too small to share among threads: two images on a core each take half the time of one
    after the other on two. Nor does what comes out then depend on the number of cores. Other devices take one image
    at a time.
    """
    if device.type != "cpu":
        yield 1
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@contextmanager
def full_width(device: torch.device) -> Iterator[None]:
    """Let float32 matrix products on the CPU use all of its vector unit while the block lasts.

    MKL, which PyTorch gives them to, leaves half of an AMD processor's AVX-512 unused. oneDNN takes them where it may
    round factors to bfloat16; with AVX-512 alone it does not, and is as exact and twice as fast. Where it would round,
    with matrix tiles (Intel's AMX), on other processors and devices, and before PyTorch 2.9, nothing changes.

    The setting is one for the whole process: it is taken back when the last block, of whichever thread, is left. What
    threads compute beside each other belongs into blocks as a whole, or the last bits depend on who is where.

    Kernels are compiled and kept for every shape, up to a thousand of them. So maps that are stored are extracted
    without: their sizes are many, and memory would grow by half a gigabyte.
    """
    if device.type != "cpu" or not _exact():
        yield
        return
    global _blocks, _before
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _lock:
        if _blocks == 0:
            _before, products.fp32_precision = products.fp32_precision, "bf16"
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                products.fp32_precision = _before


_lock = threading.Lock()
_blocks, _before = 0, ""


@cache
def _exact() -> bool:
    """Whether oneDNN computes in float32 where it may round, and that more quickly than MKL."""
    if not hasattr(torch.backends.mkldnn, "matmul") or not hasattr(torch.cpu, "get_capabilities"):
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_f") and has.get("avx512_bf16") and not has.get("amx_tile"))
