"""Torch's threads and float32 arithmetic while work on a device lasts; what is specific to a vendor's CPU is here."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from boxless.process import ProcessSetting


@contextmanager
def one_thread_per_image(device: torch.device) -> Iterator[int]:
    """Give torch one thread within the block, and yield how many images to process at once, each on one thread.

    Layers of one image are too small to share among threads: two images on one core each take half the time of one
    after the other on both. The results then do not depend on the number of cores. Other devices take one image at a
    time.
    """
    if device.type != "cpu":
        yield 1
        return
    with _threads.changed_to(1) as threads:
        yield threads


_threads = ProcessSetting(torch.get_num_threads, torch.set_num_threads)


@contextmanager
def full_width(device: torch.device) -> Iterator[None]:
    """Let float32 matrix products on the CPU use all of its vector unit while the block lasts.

    MKL, which PyTorch gives them to, leaves half of an AMD processor's AVX-512 unused. oneDNN takes them where it may
    round factors to bfloat16; with AVX-512 alone it does not, and is as exact and twice as fast. Where it would round,
    with matrix tiles (Intel's AMX), on other processors and devices, and before PyTorch 2.9, nothing changes.

    The setting is global to the process: it is restored when the last block, of whichever thread, is left. All that
    threads compute in parallel belongs into the block, or the last bits depend on the timing.

    Kernels are compiled and kept for every shape, up to a thousand of them. Feature maps to be cached are therefore
    extracted outside of such a block: their sizes are many, and memory would grow by half a gigabyte.
    """
    if device.type != "cpu" or not _exact():
        yield
        return
    with _precision.changed_to("bf16"):
        yield


def _set_precision(name: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = name  # type: ignore[attr-defined]


_precision = ProcessSetting(lambda: str(torch.backends.mkldnn.matmul.fp32_precision), _set_precision)  # type: ignore[attr-defined]


@cache
def _exact() -> bool:
    """Whether oneDNN computes in float32 where it may round, and that more quickly than MKL."""
    if not hasattr(torch.backends.mkldnn, "matmul") or not hasattr(torch.cpu, "get_capabilities"):
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_f") and has.get("avx512_bf16") and not has.get("amx_tile"))
