import os
import subprocess
import sys

from boxless.process import ProcessSetting


def test_the_last_block_restores_what_was_before_the_first():
    values = [8]
    setting = ProcessSetting(lambda: values[-1], values.append)
    first, second = setting.changed_to(1), setting.changed_to(1)
    assert first.__enter__() == 8 and second.__enter__() == 8
    # Threads leave in any order.
    first.__exit__(None, None, None)
    assert values[-1] == 1
    second.__exit__(None, None, None)
    assert values[-1] == 8


def test_the_command_line_lets_threads_sleep_before_torch_is_imported():
    script = "import os, sys, boxless.cli; assert 'torch' not in sys.modules; boxless.cli.main()"
    script = f"import atexit, os; atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'])); {script}"
    for given, expected in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
        command = [sys.executable, "-c", script, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.splitlines()[-1] == expected
