"""A stand-in for the Hugging Face Hub on this machine: repositories of models, as huggingface_hub asks for them."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"


@dataclass
class Hub:
    """What the server holds, and what it was asked for.

    Args:
        address: of the server.
        repos: by name the files, by path.
        private: names of private repositories.
        requests: method and path of every request.
    """

    address: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def commit(self, repo: str) -> str:
        """The name of the newest commit."""
        files = self.repos[repo]
        return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        found = re.fullmatch(r"/(?:api/models/)?([\w.-]+/[\w.-]+)(?:/(revision|tree|resolve)/([^/]+)/?(.*))?", path)
        if found is None or found[1] not in self.hub.repos or (found[1] in self.hub.private and not self.logged_in()):
            self.refuse(404, "RepoNotFound")
            return
        repo, what, revision, name = found.groups()
        files, commit = self.hub.repos[repo], self.hub.commit(repo)
        if what is None:
            self.answer({"id": repo, "private": repo in self.hub.private})
        elif revision not in ("main", commit):
            self.refuse(404, "RevisionNotFound")
        elif what == "revision":
            self.answer({"id": repo, "modelId": repo, "sha": commit, "siblings": [{"rfilename": one} for one in files]})
        elif what == "tree":
            rows = [(one, hashlib.sha1(content).hexdigest(), len(content)) for one, content in files.items()]
            self.answer([{"type": "file", "path": one, "oid": oid, "size": size} for one, oid, size in rows])
        elif name not in files:
            self.refuse(404, "EntryNotFound")
        else:
            oid = hashlib.sha1(files[name]).hexdigest()
            self.answer(files[name], ETag=f'"{oid}"', X_Repo_Commit=commit)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.requests.append(f"POST {path}")
        if not self.logged_in():
            self.refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            said = json.loads(body)
            repo = f"{said['organization']}/{said['name']}"
            if said["organization"] == "others":
                self.refuse(403, "Forbidden")
                return
            if repo not in self.hub.repos and (said.get("private") or said.get("visibility") == "private"):
                self.hub.private.add(repo)
            self.hub.repos.setdefault(repo, {})
            self.answer({"url": f"{self.hub.address}/{repo}", "id": repo})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        else:
            self.take(path.removeprefix("/api/models/").partition("/commit/")[0], body)

    def take(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.hub.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = self.hub.commit(repo)
        self.answer({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{repo}/commit/{commit}"})

    def logged_in(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port of the loopback interface."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
