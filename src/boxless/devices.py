"""The device, and torch's threads and float32 arithmetic while work on it lasts; what is specific to a vendor's CPU."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from accelerate import PartialState

from boxless.errors import BoxlessError
from boxless.process import ProcessSetting

logger = logging.getLogger(__name__)


def default_device() -> torch.device:
    """The device that accelerate finds for this process.

    Raises:
        BoxlessError: see `launch_errors`.
    """
    with launch_errors():
        return torch.device(PartialState().device)


@contextmanager
def launch_errors() -> Iterator[None]:
    """Let accelerate join the processes of a run within the block, where LOCAL_RANK tells that there are some.

    torchrun and `accelerate launch` set it for the processes that they start, and four more variables.

    Raises:
        BoxlessError: the variables do not fit together, for example as one was left in the environment, or the
            processes cannot be joined.
    """
    if os.environ.get("LOCAL_RANK", "-1") != "-1":
        _check_ranks()
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
        logger.info("Process %d of %s, as RANK and WORLD_SIZE say: joining the others", rank, count)


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
