"""The device, and torch's threads and float32 arithmetic while work on it lasts; what is specific to a vendor's CPU."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
from accelerate import DistributedType, PartialState

from boxless.errors import BoxlessError, in_one_line
from boxless.logs import EVERY_PROCESS
from boxless.process import ProcessSetting, cores, is_launched

logger = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(days=7)
"""Timeout of collective operations: one process fills the caches, which may take hours, and the others wait."""
IMAGES_AT_ONCE, PIXELS_AT_ONCE = 8, 2**21
"""Most images that a thread takes through a network on a GPU together, and most pixels of one batch of their views."""
MAX_READERS = 4
"""Most threads that read and resize images for a GPU; each keeps a batch in its memory."""


def default_device() -> torch.device:
    """The device that accelerate finds for this process: a GPU, but not Apple's, see `join_processes`.

    Raises:
        BoxlessError: see `join_processes`.
    """
    return torch.device(join_processes().device)


def find_device(name: str | torch.device) -> torch.device:
    """The device of a name such as `cuda:1`.

    Raises:
        BoxlessError: this machine or this PyTorch does not have it.
    """
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError) as error:
        raise BoxlessError(
            f"device {name}: not available here ({in_one_line(error)}); leave it out, or give cpu"
        ) from None


def join_processes() -> PartialState:
    """Let accelerate join the processes of a run, where LOCAL_RANK tells that there are some.

    torchrun and `accelerate launch` set it for the processes that they start, and four more variables. Without a GPU
    the processes share the CPU. An Apple GPU is not used: PyTorch crashes where several threads compute on it, and
    training would read batches that are not copied yet (its issues 197805 and 189690).

    Raises:
        BoxlessError: the variables do not fit together, for example as one was left in the environment, or the
            processes cannot be joined.
    """
    if is_launched():
        _check_ranks()
    with launch_errors():
        state = PartialState(cpu=torch.backends.mps.is_available(), timeout=LONGEST_WAIT)
        if is_launched() and state.distributed_type == DistributedType.NO:
            # accelerate joins processes on the CPU only when it is told to.
            PartialState._reset_state()
            state = PartialState(cpu=True, timeout=LONGEST_WAIT)
        return state


@contextmanager
def launch_errors() -> Iterator[None]:
    """Turn what accelerate raises within the block, of devices and processes, into one line.

    Raises:
        BoxlessError: it cannot use them.
    """
    try:
        yield
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BoxlessError(
            f"accelerate cannot use the device or the processes of the environment ({reason}); "
            "unset what another launcher left there, such as LOCAL_RANK, WORLD_SIZE or ACCELERATE_USE_DEEPSPEED"
        ) from error


def _check_ranks() -> None:
    numbers = {name: os.environ.get(name, "") for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT")}
    wrong = [name for name, number in numbers.items() if not number.isdecimal()]
    wrong += [] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR"]
    if not wrong and int(numbers["RANK"]) >= int(numbers["WORLD_SIZE"]):
        wrong = ["RANK", "WORLD_SIZE"]
    if wrong:
        raise BoxlessError(
            "LOCAL_RANK is set, as if torchrun had started this process, but these are missing or do not fit: "
            f"{', '.join(wrong)}; unset LOCAL_RANK, or start with torchrun or accelerate launch"
        )
    if not torch.distributed.is_initialized():
        rank, count = int(numbers["RANK"]) + 1, numbers["WORLD_SIZE"]
        text = "Process %d of %s, as RANK and WORLD_SIZE say: joining the others"
        # Every process logs it, as one whose variables were left by another run hangs here.
        logger.info(text, rank, count, extra={EVERY_PROCESS: True})


def images_at_once(device: torch.device) -> int:
    """How many images a thread takes through a network together."""
    return 1 if device.type == "cpu" else IMAGES_AT_ONCE


def views_at_once(sizes: Sequence[tuple[int, int]], device: torch.device) -> list[list[int]]:
    """Batches of views, by number, that go through a network together.

    On the CPU each is a batch by itself. On other devices views of the same size are one, up to `PIXELS_AT_ONCE`:
    padding smaller views would change what the network sees at their edges.

    Args:
        sizes: two sides of every view in pixels.
        device: of the network.
    """
    if device.type == "cpu":
        return [[number] for number in range(len(sizes))]
    same: dict[tuple[int, int], list[int]] = {}
    for number, size in enumerate(sizes):
        same.setdefault(size, []).append(number)
    batches = []
    for size, numbers in same.items():
        most = max(1, PIXELS_AT_ONCE // math.prod(size))
        batches += [numbers[first : first + most] for first in range(0, len(numbers), most)]
    return batches


@contextmanager
def one_thread_per_image(device: torch.device) -> Iterator[int]:
    """Give torch one thread within the block, and yield how many images to process at once, each on one thread.

    Layers of one image are too small to share among threads: two images on one core each take half the time of one
    after the other on both. The results then do not depend on the number of cores. For other devices threads read and
    resize ahead, and leave the rest to the device.
    """
    if device.type != "cpu":
        yield 1 if device.type == "mps" else min(MAX_READERS, cores())
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
