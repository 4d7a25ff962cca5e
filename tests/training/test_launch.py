"""Variables of the environment that other programs left there."""

from pathlib import Path

import pytest
import torch

from boxless import devices
from boxless.config import TrainingConfig
from boxless.devices import default_device, launch_errors
from boxless.errors import BoxlessError
from boxless.training.fit import _accelerator

WHOLE = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


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
    with caplog.at_level("INFO", logger="boxless"), launch_errors():
        pass
    assert "Process 1 of 2" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("the port is taken\nmore"), ImportError("DeepSpeed is not installed")])
def test_what_accelerate_cannot_use_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail() -> None:
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
