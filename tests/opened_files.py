"""Which files a process opens while a test watches."""

from typing import Any


class Opened:
    """The files that this process opens, all its threads, while the block lasts."""

    def __init__(self) -> None:
        self.watching = False
        self.names: list[str] = []
        self.for_writing: list[str] = []

    def __enter__(self) -> None:
        self.watching = True

    def __exit__(self, *_: object) -> None:
        self.watching = False

    def record(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "open":
            name, mode, flags = str(args[0]), args[1] or "", args[2]
            self.names.append(name)
            # O_WRONLY, O_RDWR and O_CREAT, for those that open without a mode.
            if set(mode) & set("wax+") or (not mode and flags & 0o103):
                self.for_writing.append(name)
        elif event in ("tempfile.mkstemp", "tempfile.mkdtemp", "os.mkdir", "os.rename"):
            self.for_writing.append(str(args[0]))
