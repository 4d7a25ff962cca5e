import logging
import subprocess
import sys
from pathlib import Path

import pytest

from boxless.logs import log_skipped, log_warnings
from boxless.structures import Dataset

SCRIPT = """
import logging, sys
from pathlib import Path
import boxless
from boxless.logs import log_skipped, log_to_console
assert logging.getLogger("boxless").handlers == [] and logging.getLogger().handlers == []
if "console" in sys.argv:
    log_to_console()
    log_to_console()
logging.getLogger("boxless.a.b").info("for your [bold]information[/]")
logging.getLogger("boxless.a.b").debug("detail")
log_skipped({Path("a"): "a: broken"})
"""


def run(*words: str) -> list[str]:
    script = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=True)
    assert script.stdout == ""
    return script.stderr.splitlines()


def test_import_installs_no_handler_and_python_prints_warnings_only():
    assert run() == ["1 image skipped:", "  a: broken"]


def test_the_command_line_prints_information_too_and_each_message_once():
    expected = ["for your [bold]information[/]", "Warning: 1 image skipped:", "  a: broken"]
    assert run("console") == expected


def test_what_was_understood_of_a_dataset_is_logged_first(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "boxless")
    log_warnings(Dataset("set", ("a",), (), ("first",), summary="COCO, 0 images, 1 class"))
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.INFO, "set: COCO, 0 images, 1 class"),
        (logging.WARNING, "first"),
    ]


def test_warnings_of_a_dataset_are_logged_one_by_one(caplog: pytest.LogCaptureFixture):
    dataset = Dataset("set", ("a",), (), ("first: 100%", "second"))
    assert log_warnings(dataset) is dataset
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.WARNING, "first: 100%"),
        (logging.WARNING, "second"),
    ]


def test_the_first_five_reasons_are_logged(caplog: pytest.LogCaptureFixture):
    log_skipped({})
    assert not caplog.records
    log_skipped({Path(name): f"{name}: broken" for name in "abcdefg"})
    assert caplog.messages == [
        "7 images skipped:\n  a: broken\n  b: broken\n  c: broken\n  d: broken\n  e: broken\n  ... and 2 more"
    ]
