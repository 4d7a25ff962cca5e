"""Variables of the environment that other programs left there."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from accelerate import DistributedType
from rich.console import Console

from boxless import devices
from boxless.config import TrainingConfig
from boxless.devices import default_device, find_device, join_processes, one_thread_per_image
from boxless.errors import BoxlessError
from boxless.logs import EVERY_PROCESS, ConsoleHandler
from boxless.process import is_main_process
from boxless.progress import bars_shown
from boxless.training.fit import _accelerator

WHOLE = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


class State:
    """As accelerate's on a machine without a GPU; `calls` has whether each was told to use the CPU."""

    calls: ClassVar[list[bool]] = []

    def __init__(self, timeout: timedelta, cpu: bool = False) -> None:
        self.distributed_type = DistributedType.MULTI_CPU if cpu else DistributedType.NO
        self.calls.append(cpu)

    @classmethod
    def _reset_state(cls) -> None:
        pass


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("left", "wrong"),
    [
        ({"LOCAL_RANK": "0"}, "RANK, WORLD_SIZE, MASTER_PORT, MASTER_ADDR"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK, RANK, WORLD_SIZE, MASTER_PORT, MASTER_ADDR"),
        (WHOLE | {"MASTER_ADDR": ""}, "MASTER_ADDR"),
        (WHOLE | {"RANK": "2"}, "RANK, WORLD_SIZE"),
    ],
)
def test_variables_of_a_launcher_that_do_not_fit_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: dict[str, str], wrong: str
) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    for start in (default_device, lambda: _accelerator(TrainingConfig(), tmp_path, [])):
        with pytest.raises(BoxlessError, match=f"missing or do not fit: {wrong}; unset LOCAL_RANK") as error:
            start()
        assert "precision" not in str(error.value)


def test_no_launcher_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "-1", "RANK": "5", "WORLD_SIZE": "x"}.items():
        monkeypatch.setenv(name, value)
    assert isinstance(default_device(), torch.device)


def test_a_joined_process_says_which_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(devices, "PartialState", State)
    with caplog.at_level("INFO", logger="boxless"):
        join_processes()
    assert "Process 1 of 2" in caplog.text


def test_without_a_gpu_processes_share_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PartialState", State)
    State.calls.clear()
    assert join_processes().distributed_type == DistributedType.NO
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert join_processes().distributed_type == DistributedType.MULTI_CPU
    assert State.calls == [False, False, True]


def test_a_mac_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PartialState", State)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    State.calls.clear()
    join_processes()
    assert State.calls == [True]
    with one_thread_per_image(torch.device("mps")) as threads:
        assert threads == 1


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(BoxlessError, match=f"device {name}: not available here .*; leave it out, or give cpu") as error:
        find_device(name)
    assert "\n" not in str(error.value)
    assert find_device("cpu") == torch.device("cpu")


def test_only_the_main_process_prints_messages_and_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(level: int, **extra: object) -> str:
        record = logging.makeLogRecord({"levelno": level, "msg": "said", **extra})
        with monkeypatch.context() as patch:
            patch.setattr("boxless.logs.console", Console(stderr=True))
            ConsoleHandler().emit(record)
        return capsys.readouterr().err

    for name, value in (WHOLE | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert is_main_process() and "said" in printed(logging.INFO)
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process() and not bars_shown()
    assert printed(logging.INFO) == printed(logging.WARNING) == ""
    assert "said" in printed(logging.ERROR) and "said" in printed(logging.INFO, **{EVERY_PROCESS: True})
    # Left by another launcher.
    monkeypatch.delenv("LOCAL_RANK")
    assert is_main_process() and "said" in printed(logging.INFO)


@pytest.mark.parametrize("error", [RuntimeError("the port is taken\nmore"), ImportError("DeepSpeed is not installed")])
def test_what_accelerate_cannot_use_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**words: object) -> None:
        raise error

    monkeypatch.setattr(devices, "PartialState", fail)
    with pytest.raises(BoxlessError, match="unset what another launcher left there") as raised:
        default_device()
    assert str(error).partition("\n")[0] in str(raised.value) and "\n" not in str(raised.value)


def test_settings_are_not_overridden_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    accelerator = _accelerator(TrainingConfig(accumulate=2), tmp_path, [])
    assert (accelerator.gradient_accumulation_steps, accelerator.mixed_precision) == (2, "no")
