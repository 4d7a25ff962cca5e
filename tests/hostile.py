"""Hostile requests to the server."""

import base64
import json
import socket
from urllib.parse import urlsplit

import numpy as np
from serving import encoded


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=20)


def raw(url: str, request: bytes, last: bool) -> int:
    """Send bytes, the last ones or not, and give the answer's status: 0 where the server hung up."""
    with connected(url) as client:
        try:
            client.sendall(request)
            if last:
                client.shutdown(socket.SHUT_WR)
            answer = client.recv(65536)
        except TimeoutError:
            raise
        except OSError:  # Of several kinds, as it may hang up at any time.
            return 0
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def post(body: bytes, kind: str = "multipart/form-data; boundary=b", path: str = "/predict", more: str = "") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


def form(content: bytes, disposition: str = 'form-data; name="file"; filename="x.png"') -> bytes:
    return f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n--b--\r\n"


def tasks(image: object, **more: object) -> bytes:
    return post(json.dumps({"tasks": [{"data": {"image": image}}], **more}).encode(), "application/json")


def get(path: str, host: str = "127.0.0.1") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


SECRET = "hostile-secret"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
BOMB = f'<!DOCTYPE b [<!ENTITY l0 "ha">{LAUGHS}]><View>&l8;</View>'
THIEF = f'<!DOCTYPE b [<!ENTITY x SYSTEM "file:///tmp/{SECRET}">]><View>&x;</View>'


def hostile(rng: np.random.Generator) -> list[tuple[bytes, set[int]]]:
    """Requests, and how each may be answered; 0 is to hang up."""
    good = encoded()
    cut, noise = int(rng.integers(1, len(good) - 20)), rng.bytes(int(rng.integers(1, 2000)))
    spoiled = bytearray(good)
    for place in rng.integers(8, len(good), 5):
        spoiled[place] ^= 1 << int(rng.integers(0, 8))
    huge = bytearray(good)
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    many = form(good).removesuffix(b"--b--\r\n") * 50 + b"--b--\r\n"
    climb = "/".join([".."] * int(rng.integers(1, 9)))
    return [
        (post(form(b"x" * 300_000)), {0, 413}),
        (b"POST /inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n", {413}),
        (b"POST /inspect HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", {400}),
        (post(form(good))[: -int(rng.integers(1, 60))], {0, 400}),
        (post(form(good[:cut])), {422}),
        (post(form(bytes(spoiled))), {200, 422}),
        (post(form(noise)), {400, 422}),
        (post(noise), {400}),
        (post(form(b"")), {422}),
        (post(form(bytes(huge))), {422}),
        (post(form(good), "multipart/form-data"), {400}),
        (post(form(good), "text/html"), {415}),
        (post(good, "image/png"), {415}),
        (post(form(good).replace(b"\r\n--b--\r\n", b"")), {400}),
        (post(form(good, "form-data")), {400}),
        (post(form(good, 'form-data; name="file"')), {400}),
        (post(form(good, 'form-data; name="other"; filename="x.png"')), {400}),
        (post(form(good, f'form-data; name="file"; filename="/{climb}/tmp/{SECRET}"')), {200}),
        (post(many), {400}),
        (post(form(good), more="Origin: http://evil.example\r\n"), {403}),
        (post(noise, "application/json"), {422}),
        (post(b"[" * 100_000, "application/json"), {422}),
        (post(b'{"tasks": 1}', "application/json"), {422}),
        (post(b'{"tasks": [1]}', "application/json"), {422}),
        (post(b'{"schema": [[]]}', "application/json", "/setup"), {422}),
        (tasks(f"/data/local-files/?d={climb}/tmp/{SECRET}"), {422}),
        (tasks(f"file:///tmp/{SECRET}"), {422}),
        (tasks("http://127.0.0.1:9/"), {422}),
        (tasks({"a": {"b": []}}), {422}),
        (tasks(data_uri(good), label_config=BOMB), {422}),
        (tasks(data_uri(good), label_config=THIEF), {422}),
        (tasks(data_uri(good), label_config="<View>" * 5000), {422}),
        (get(f"/{climb}/tmp/{SECRET}"), {404}),
        (get(f"/app.js/{climb.replace('.', '%2e')}/tmp/{SECRET}"), {404}),
        (get(f"/static/..%5c..%2ftmp%2f{SECRET}"), {404}),
        (get(f"//tmp/{SECRET}"), {404}),
        (get(f"/?file=/tmp/{SECRET}"), {200}),
        (get("/", "evil.example"), {400}),
        (get("/" + "a" * 100_000), {0, 400, 404, 431}),
        (b"GET / HTTP/1.1\r\n\r\n", {400}),
        (b"DELETE /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {405}),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", {0, 200, 400, 431}),
        (b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {0, 400}),
        (noise, {0, 400}),
        (b"", {0}),
        *_disguised(good, noise),
    ]


def _disguised(good: bytes, noise: bytes) -> list[tuple[bytes, set[int]]]:
    """Requests that are not what they seem."""
    whole = form(good)
    start = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    deep = f"data:image/png;base64,{base64.b64encode(good).decode()}"
    return [
        (b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {405}),
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {0, 400, 404, 405}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {0, 400}),
        (b"GET / HTTP/0.9\r\n\r\n", {0, 400}),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", {400}),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\0b\r\n\r\n", {400}),
        (b"GET /%00%0d%0aSet-Cookie:%20a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {404}),
        (get("/", "evil.example:80@127.0.0.1"), {400}),
        (post(whole, more="Origin: null\r\n"), {403}),
        (post(whole, more="Content-Length: 7\r\n"), {400}),
        (post(whole, more="Content-Encoding: gzip\r\n"), {200, 400}),
        (start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {0, 400, 415}),
        (start + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n", {0, 100, 400}),
        (post(whole, path="/predict?threshold=nan"), {200, 422}),
        (post(whole, path="/predict?threshold=" + "9" * 10_000), {200, 422}),
        (post(whole, "multipart/form-data; boundary=" + "b" * 5000), {400}),
        (post(whole, 'multipart/form-data; boundary="\xe9\xff"'), {400}),
        (post(b"--b\r\n" + b"X: y\r\n" * 5000 + whole), {400}),
        (post(json.dumps({"tasks": [], "label_config": "<View a='\ud800'/>"}).encode(), "application/json"), {422}),
        (tasks(deep, label_config=noise.decode("latin-1")), {422}),
        (tasks(deep, label_config=_CONTROL.replace("image", "\U0010ffff")), {422}),
        (post(b'{"tasks": [{"data": {"\\ud800": 1e999}}]}', "application/json"), {422}),
        (post(b"\xff\xfe{\0}\0", "application/json"), {422}),
    ]


_CONTROL = """<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i"><Label value="cat"/>
</RectangleLabels></View>"""
