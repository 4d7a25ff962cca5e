import asyncio
import base64
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from hostile import connected, data_uri
from opened_files import Opened
from PIL import Image
from serving import BOXES, CLASSES, SCORES, encoded, known_detector, served, served_app

from boxless.server import Limits, create_app
from boxless.server.service import Service
from boxless.visualize import draw_heatmap
from boxless.visualize.boxes import class_colour

GENEROUS = Limits(rate=1e6, burst=10**6)
CAT, DOG, OWL = ({"name": name, "score": SCORES[name], "box": BOXES[name]} for name in CLASSES)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(known_detector(), GENEROUS) as address:
        yield address


def upload(address: str, content: bytes | None = None, path: str = "predict", **params: Any) -> requests.Response:
    files = {"file": ("an image.png", encoded() if content is None else content)}
    return requests.post(f"{address}/{path}", files=files, params=params, timeout=30)


def pixels_of(uri: str) -> np.ndarray:
    head, content = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(BytesIO(base64.b64decode(content))))


# For programs.


def test_predict_gives_the_confident_boxes(url: str) -> None:
    answer = upload(url)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_version": "first",
        "width": 96,
        "height": 64,
        "image_scores": SCORES,
        "detections": [CAT, DOG],
    }


def test_predict_gives_all_boxes_above_a_score(url: str) -> None:
    assert upload(url, threshold=0).json()["detections"] == [CAT, DOG, OWL]
    assert upload(url, threshold=0.7).json()["detections"] == [CAT]
    assert upload(url, threshold="much").status_code == 422


def test_images_are_read_as_displayed(url: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    answer = upload(url, encoded("JPEG", (64, 96), exif=turned)).json()
    assert (answer["width"], answer["height"], answer["detections"]) == (96, 64, [CAT, DOG])


def test_inspect_gives_everything_the_page_shows(url: str) -> None:
    answer = upload(url, encoded("TIFF", (192, 128)), "inspect").json()
    found = [(one["name"], one["confident"], one["box"]) for one in answer["detections"]]
    assert found == [(name, name != "owl", [2 * side for side in BOXES[name]]) for name in CLASSES]
    assert pixels_of(answer["image"]).shape == (128, 192, 3)
    heat = known_detector().heatmap(np.zeros((128, 192, 3), np.uint8))
    for label, name in enumerate(CLASSES):
        assert answer["classes"][name]["colour"] == "#{:02x}{:02x}{:02x}".format(*class_colour(label))
        wanted = draw_heatmap(np.zeros((128, 192, 3), np.uint8), heat.maps[label], alpha=1)
        difference = np.abs(pixels_of(answer["classes"][name]["heatmap"]) - wanted.astype(float))
        assert difference.mean() < 8


def test_images_for_the_page_are_scaled_down(url: str) -> None:
    answer = upload(url, encoded("JPEG", (3200, 2400)), "inspect").json()
    assert (answer["width"], answer["height"]) == (3200, 2400)
    assert pixels_of(answer["image"]).shape == (1200, 1600, 3)
    assert pixels_of(answer["classes"]["cat"]["heatmap"]).shape == (240, 320, 3)


def test_the_model_route_gives_name_classes_and_limits(url: str) -> None:
    model = requests.get(f"{url}/model", timeout=30).json()
    assert (model["model_version"], model["method"], model["classes"]) == ("first", "quarters", list(CLASSES))
    assert (model["max_bytes"], model["max_pixels"]) == (GENEROUS.size, GENEROUS.pixels)
    assert '<Label value="owl" />' in model["labeling_config"]


def test_the_description_needs_no_network(url: str) -> None:
    description = requests.get(f"{url}/openapi.json", timeout=30).json()
    assert description["paths"].keys() == {"/model", "/inspect", "/predict", "/health", "/setup"}
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert body.keys() == {"multipart/form-data", "application/json"}
    assert requests.get(f"{url}/docs", timeout=30).status_code == 404


def test_the_page_loads_nothing_from_other_sites(url: str) -> None:
    for path in ("", "app.js", "style.css"):
        answer = requests.get(f"{url}/{path}", timeout=30)
        assert answer.status_code == 200 and answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "Access-Control-Allow-Origin" not in answer.headers and "Server" not in answer.headers


def test_every_answer_has_the_headers_that_owasp_asks_for(url: str) -> None:
    answers = [requests.get(f"{url}/{path}", timeout=30) for path in ("", "model", "nowhere")]
    answers += [upload(url, b"no image"), requests.get(f"{url}/health", headers={"Host": "evil"}, timeout=30)]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 422, 400]
    # https://owasp.org/www-project-secure-headers, as far as it concerns plain HTTP without sessions.
    asked = {
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "X-Permitted-Cross-Domain-Policies": "none",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    for answer in answers:
        assert {name: answer.headers.get(name) for name in asked} == asked
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "camera=()" in answer.headers["Permissions-Policy"]


# For Label Studio.

CONFIG = """<View><Image name="photo" value="$image"/><Choices name="quality" toName="photo"><Choice value="cat"/>
</Choices><RectangleLabels name="beasts" toName="photo">
<Label value="dog"/><Label value="cow"/></RectangleLabels></View>"""


def test_label_studio_is_set_up(url: str) -> None:
    assert requests.get(f"{url}/health", timeout=30).json()["status"] == "UP"
    setup = {
        "project": "1.1700000000",
        "schema": CONFIG,
        "hostname": "http://x",
        "access_token": "",
        "extra_params": None,
    }
    answer = requests.post(f"{url}/setup", json=setup, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"model_version": "first"})
    answer = requests.post(f"{url}/setup", json=setup | {"schema": "<View/>"}, timeout=30)
    assert answer.status_code == 422 and "one of the labels cat, dog, owl" in answer.json()["error"]


def test_label_studio_gets_predictions_in_its_config(url: str) -> None:
    tasks = [{"id": 7, "data": {"image": data_uri(encoded(size=size))}} for size in ((96, 64), (192, 128))]
    body = {"tasks": tasks, "project": "1.1700000000", "label_config": CONFIG, "params": {"context": None}}
    answer = requests.post(f"{url}/predict", json=body, timeout=30).json()
    assert answer["model_version"] == "first"
    first, second = answer["results"]
    assert (first["model_version"], first["score"]) == ("first", 0.9)
    (region,) = first["result"]
    assert (region["from_name"], region["to_name"], region["type"]) == ("beasts", "photo", "rectanglelabels")
    assert (region["original_width"], region["original_height"], region["score"]) == (96, 64, 0.6)
    wanted = {"x": 0, "y": 50, "width": 100, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]}
    assert region["value"] == second["result"][0]["value"] == wanted


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/data/upload/1/cat.jpg", "task 2: 'image' is a path or a URL, and this server reads neither"),
        ("http://127.0.0.1:1/cat.jpg", "task 2: 'image' is a path or a URL"),
        ("file:///etc/hostname", "task 2: 'image' is a path or a URL"),
        ("data:text/plain,cat", "task 2: 'image' is a path or a URL"),
        ("data:image/png;base64,a*b", "task 2: 'image' is not base64"),
        (None, "task 2: its data has no 'image'"),
    ],
)
def test_no_path_or_url_in_a_task_is_read(url: str, image: str | None, message: str) -> None:
    tasks = [{"data": {"image": data_uri(encoded())}}, {"data": {"image": image}}]
    answer = requests.post(f"{url}/predict", json={"tasks": tasks}, timeout=30)
    assert answer.status_code == 422 and message in answer.json()["error"]


def test_an_image_that_cannot_be_read_costs_the_other_tasks_nothing(url: str) -> None:
    good, bad = {"data": {"image": data_uri(encoded())}}, {"data": {"image": "data:image/png;base64,YWJj"}}
    answer = requests.post(f"{url}/predict", json={"tasks": [good, bad, good]}, timeout=30)
    first, empty, last = answer.json()["results"]
    assert answer.status_code == 200 and first == last and len(first["result"]) > 0
    assert (empty["result"], empty["score"]) == ([], 0)
    answer = requests.post(f"{url}/predict", json={"tasks": [bad, bad]}, timeout=30)
    assert answer.status_code == 422 and "task 1: not an image" in answer.json()["error"]


# Bounds.


def test_too_large_a_request_is_refused_before_it_is_read() -> None:
    with served(known_detector(), Limits(size=10_000)) as url:
        assert upload(url, encoded("BMP", (50, 50))).status_code == 200
        answer = upload(url, encoded("BMP", (60, 60)))
        assert (answer.status_code, answer.headers["Connection"]) == (413, "close")
        assert "more than 10,000 bytes" in answer.json()["error"]
        # Without a length, and without an end.
        answer = requests.post(f"{url}/predict", data=(b"x" * 1000 for _ in range(20)), timeout=30)
        assert answer.status_code == 413


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    with served(known_detector(), Limits(pixels=6143)) as url:
        answer = upload(url)
        assert answer.status_code == 422 and "the image: more than 6,143 pixels" in answer.json()["error"]


def test_too_many_tasks_are_refused() -> None:
    with served(known_detector(), Limits(tasks=2)) as url:
        body = {"tasks": [{"data": {"image": data_uri(encoded())}}] * 3}
        assert requests.post(f"{url}/predict", json=body, timeout=30).status_code == 413


def test_too_many_requests_from_one_address_are_refused() -> None:
    with served(known_detector(), Limits(rate=2, burst=3)) as url:
        assert [upload(url).status_code for _ in range(3)] == [200] * 3
        answer = upload(url)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert requests.get(f"{url}/health", timeout=30).status_code == 200
        time.sleep(1.1)
        assert upload(url).status_code == 200


def test_too_many_requests_at_once_are_refused() -> None:
    with served(known_detector(seconds=0.3), Limits(waiting=3)) as url, ThreadPoolExecutor(12) as pool:
        codes = [answer.status_code for answer in pool.map(lambda _: upload(url), range(12))]
        assert set(codes) == {200, 503} and codes.count(200) >= 3
        assert upload(url).status_code == 200


def test_a_request_waits_for_the_detector_no_longer_than_the_limit() -> None:
    with served(known_detector(seconds=1.5), Limits(seconds=0.5)) as url, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: upload(url), range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 503]


def test_a_cancelled_request_keeps_its_turn_while_its_thread_works() -> None:
    service, begun, end = Service(known_detector(), GENEROUS), threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        begun.set()
        end.wait(30)
        order.append("first")
        raise ValueError("nobody waits for it")

    async def cancel_and_ask_again() -> None:
        request = asyncio.create_task(service.run(first))
        await asyncio.to_thread(begun.wait, 30)
        request.cancel()
        second = asyncio.create_task(service.run(lambda: order.append("second")))
        done, _ = await asyncio.wait([request, second], timeout=0.3)
        assert done == {request} and request.cancelled() and order == []
        end.set()
        await asyncio.wait_for(second, 30)
        with pytest.raises(ZeroDivisionError):
            await service.run(lambda: 1 // 0)

    # In a thread, as tests of pages leave an event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(cancel_and_ask_again())).result()
    assert order == ["first", "second"]


def test_a_slow_client_is_disconnected_at_the_limit() -> None:
    with served(known_detector(), Limits(seconds=0.5)) as url, connected(url) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nslow")
        assert b" 408 " in client.recv(1000)


def test_a_connection_without_a_request_is_closed_at_the_limit() -> None:
    with served(known_detector(), Limits(seconds=0.5)) as url, connected(url) as silent, connected(url) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0")
        assert upload(url).status_code == 200
        for client in (silent, slow):
            with suppress(ConnectionResetError):
                assert client.recv(1000) == b""
        with connected(url) as patient:
            for _ in range(4):
                # Those that ask now and then are kept open.
                patient.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    answer += patient.recv(4000)
                assert b" 200 " in answer
                time.sleep(0.3)


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("192.168.7.7:8000", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("evil@127.0.0.1", 400),
        ("127.0.0.1/x", 400),
        ("", 400),
    ],
)
def test_other_names_for_this_machine_are_refused(url: str, host: str, code: int) -> None:
    assert requests.get(f"{url}/health", headers={"Host": host}, timeout=30).status_code == code


def test_a_name_that_the_server_was_started_with_is_allowed() -> None:
    with served_app(create_app(known_detector(), names=["0.0.0.0", "Host.docker.internal"])) as url:
        for host, code in (("host.docker.internal:8000", 200), ("docker.internal", 400)):
            assert requests.get(f"{url}/health", headers={"Host": host}, timeout=30).status_code == code


def test_requests_from_pages_of_other_sites_are_refused(url: str) -> None:
    for origin, code in ((url, 200), ("http://evil.example", 403), ("null", 403), ("http://[", 403), (url + "0", 403)):
        files = {"file": ("x.png", encoded())}
        answer = requests.post(f"{url}/predict", files=files, headers={"Origin": origin}, timeout=30)
        assert answer.status_code == code


def test_large_uploads_are_not_spooled_to_disk(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = encoded("BMP", (1200, 1200), noise=True)
    assert len(image) > 4_000_000
    with opened:
        assert upload(url, image).status_code == 200
        body = {"tasks": [{"data": {"image": data_uri(image)}}]}
        assert requests.post(f"{url}/predict", json=body, timeout=30).status_code == 200
    assert opened.for_writing == [] and list(tmp_path.iterdir()) == []
