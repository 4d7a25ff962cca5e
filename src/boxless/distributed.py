"""Several processes of one run, as torchrun and `accelerate launch` start them: who does what, and what all get."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils import broadcast_object_list, gather_object

from boxless.config import TrainingConfig
from boxless.devices import join_processes
from boxless.errors import BoxlessError

T = TypeVar("T")
R = TypeVar("R")


def batch_share(training: TrainingConfig, processes: int) -> tuple[int, int]:
    """What one of several processes does of each update of the weights: images a step, and steps.

    The images of an update are those of the settings, whatever the number of processes: first the steps' images are
    shared, and where they cannot be, the steps. Learning rate, epochs and updates then stay as they are.

    Raises:
        BoxlessError: neither can be shared evenly.
    """
    if training.batch_size % processes == 0:
        return training.batch_size // processes, training.accumulate
    if training.accumulate % processes == 0:
        return training.batch_size, training.accumulate // processes
    raise BoxlessError(
        f"training.batch_size={training.batch_size} and training.accumulate={training.accumulate} cannot be shared "
        f"evenly by {processes} processes: start as many as divide one of them, or set training.batch_size to a "
        f"multiple of {processes} and raise training.lr by the factor by which the images of an update become more"
    )


def on_main_process(work: Callable[[], T]) -> T:
    """Call a function in the main process; all processes, which must call this together, get its result or its error.

    Raises:
        BoxlessError: what the function raised.
    """
    state = join_processes()
    if state.num_processes == 1:
        return work()
    found: list[T | BoxlessError | None] = [None]
    if state.is_main_process:
        try:
            found = [work()]
        except BoxlessError as error:
            found = [error]
    (result,) = broadcast_object_list(found)
    if isinstance(result, BoxlessError):
        raise result
    return result  # type: ignore[no-any-return]


def in_shares(work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """Results for all items, of which every process works on a share; all processes must call this together.

    Args:
        work: from a share to one result an item.
        items: the same in all processes.
    """
    state = join_processes()
    shares = gather_object([work(items[state.process_index :: state.num_processes])])
    results: list[R | None] = [None] * len(items)
    for process, share in enumerate(shares):
        results[process :: state.num_processes] = share
    return results  # type: ignore[return-value]
