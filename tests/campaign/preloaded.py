"""Commands in processes that are forked from one which has imported everything: each starts in milliseconds.

Run as a program, it reads JSON lines and answers each with one: `{"words": [...], ...}` starts a command,
`{"wait": pid}` waits for it, `{"orphans": seconds}` lists the processes that killed commands have left; it adopts them.
"""

import atexit
import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Ended:
    """How a command ended.

    Args:
        status: of exit; negative is the signal that killed it.
        seconds: from start to end.
        output: what it wrote to standard output and error.
    """

    status: int
    seconds: float
    output: str


class Preloaded:
    """The process that forks commands, with small settings for networks within a run, see `running.shorten_training`.

    Args:
        folder: takes the output of the commands.
        library: stands before the C library, see `reads.c`; None for none.
    """

    def __init__(self, folder: Path, library: Path | None = None) -> None:
        self._folder, self._number = folder, 0
        paths = os.pathsep.join((str(HERE), str(HERE.parent)))
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library or "")}
        words = [sys.executable, __file__]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=300)

    def start(self, *words: object, environment: Mapping[str, object] | None = None, first: str = "") -> "Command":
        """Start `boxless WORDS`; `first` is a statement to be executed before."""
        self._number += 1
        output = self._folder / f"output-{self._number}"
        own = {key: str(value) for key, value in (environment or {}).items()}
        pid = self.ask({"words": [*map(str, words)], "environment": own, "output": str(output), "first": first})
        return Command(self, pid, output)

    def run(self, *words: object, **options: Any) -> Ended:
        """Run a command to its end."""
        return self.start(*words, **options).wait()

    def orphans(self) -> list[int]:
        """Processes that commands have left behind; they have a minute to notice that they are alone."""
        found: list[int] = self.ask({"orphans": 60})
        return found

    def ask(self, question: dict[str, Any]) -> Any:
        """Send a line and give the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@dataclass
class Command:
    """A command that was started."""

    server: Preloaded
    pid: int
    output: Path
    started: float = field(default_factory=time.monotonic)

    def kill(self, moment: float = 0) -> Ended:
        """Kill it so many seconds after its start, if it has not ended by then."""
        time.sleep(max(0, self.started + moment - time.monotonic()))
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Ended:
        """Wait for its end."""
        status = self.server.ask({"wait": self.pid})
        return Ended(status, time.monotonic() - self.started, self.output.read_text(errors="replace"))


def _serve() -> None:
    import pytest
    from running import shorten_training

    import boxless.demo.run
    import boxless.doctor
    import boxless.server
    import boxless.training.fit  # noqa: F401

    shorten_training(pytest.MonkeyPatch())
    # Collecting garbage would copy the memory that is shared.
    gc.freeze()
    # Orphans become children of this process.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer: Any = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        elif "orphans" in question:
            answer = _orphans(question["orphans"])
        else:
            answer = os.fork()
            if not answer:
                _run(**question)
        print(json.dumps(answer), flush=True)


def _orphans(seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return []
        if time.monotonic() > deadline:
            listed = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
            return [int(child) for children in listed for child in children]
        time.sleep(0.05)


def _run(words: list[str], environment: dict[str, str], output: str, first: str) -> None:
    from boxless.cli import main

    with Path(output).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ |= environment
    sys.argv = ["boxless", *words]
    status: object = 0
    try:
        exec(first)
        main()
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:
        traceback.print_exc()
        status = 1
    # The end of the interpreter itself would copy all memory that is shared with the process it was forked from.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    _serve()
