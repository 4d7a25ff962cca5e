"""Small archives of PASCAL VOC, and a server that has them."""

import hashlib
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from boxless.datasets.download import Archive

XML = "<annotation><object><name>dog</name></object></annotation>"


def tar(**ids_by_split: list[str]) -> bytes:
    """A VOC2007 archive with 100 kB images of noise."""
    members = {}
    for split, ids in ids_by_split.items():
        members[f"ImageSets/Main/{split}.txt"] = "".join(f"{id_}\n" for id_ in ids).encode()
        for id_ in ids:
            members[f"JPEGImages/{id_}.jpg"] = os.urandom(100_000)
            members[f"Annotations/{id_}.xml"] = XML.encode()
    return pack({f"VOCdevkit/VOC2007/{name}": content for name, content in members.items()})


def pack(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@dataclass
class Server:
    """Serves `files`; `requests` are the names asked for and from which byte."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    ranges: bool = True
    cut: int | None = None

    def archive(self, name: str, **splits: list[str]) -> Archive:
        self.files[name] = tar(**splits)
        md5 = hashlib.md5(self.files[name]).hexdigest()
        return Archive(name, f"{self.url}/{name}", md5, {split: len(ids) for split, ids in splits.items()})

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.lstrip("/")
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.requests.append((name, start))
        content = self.files.get(name)
        if content is None:
            handler.send_error(404)
        elif asked and self.ranges and start >= len(content):
            handler.send_error(416)
        else:
            start = start if self.ranges else 0
            handler.send_response(206 if asked and self.ranges else 200)
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            handler.send_header("Content-Length", str(len(content) - start))
            handler.end_headers()
            handler.wfile.write(content[start : self.cut])


@contextmanager
def archive_server() -> Iterator[Server]:
    """A server on a free port of the loopback interface."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        state.url = f"http://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield state
        listener.shutdown()
        thread.join()
