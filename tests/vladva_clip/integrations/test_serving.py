"""The server of docs/serving.md: equal features for OpenAI's client, and nothing of a text is opened."""

import base64
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vladva_clip
from tests.support import serving
from tests.support.documented import ROOT, snippets
from tests.support.samples import picture

for name in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(name, reason="in the extra `clients`")
SERVE = next(one.code for one in snippets(ROOT / "docs/serving.md") if one.code.startswith("# serve.py"))
TEXTS = ["a red circle", "a green star left of a blue square", " "]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the documented server, which runs in a folder with a picture."""
    place = tmp_path_factory.mktemp("serve")
    (place / "serve.py").write_text(SERVE)
    picture(1).save(place / "x.png")
    with serving.running(place, serving.free_port()) as address:
        yield address


@pytest.fixture
def client(server):
    import openai

    with openai.OpenAI(base_url=server, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def tiny():
    model, preprocess = vladva_clip.create_model("vladva-tiny")
    return model, preprocess, vladva_clip.get_tokenizer("vladva-tiny")


def expected_texts(tiny, texts: list[str]) -> np.ndarray:
    model, _, tokenizer = tiny
    with torch.no_grad():
        return model.encode_text(tokenizer(texts), normalize=True).numpy()


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def post(server: str, content: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(f"{server}/embeddings", content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def features(found) -> np.ndarray:
    return np.array([one.embedding for one in found.data], np.float32)


def test_texts_and_pictures_in_one_request(client, tiny, tmp_path):
    model, preprocess, _ = tiny
    picture(3).save(path := tmp_path / "3.png")
    found = features(client.embeddings.create(model="vladva-tiny", input=[*TEXTS, data_url(path)]))
    with torch.no_grad():
        image = model.encode_image(preprocess(picture(3))[None], normalize=True).numpy()
    assert np.abs(found - np.concatenate([expected_texts(tiny, TEXTS), image])).max() < 1e-5


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_fewer_dimensions_and_encodings(client, server, tiny, encoding):
    expected = vladva_clip.truncate(torch.from_numpy(expected_texts(tiny, TEXTS[:1])), 64).numpy()
    options = {"model": "vladva-tiny", "input": TEXTS[0], "dimensions": 64}
    assert np.abs(features(client.embeddings.create(**options)) - expected).max() < 1e-5
    _, answer = post(server, json.dumps(options | {"encoding_format": encoding}).encode())
    found = answer["data"][0]["embedding"]
    found = np.frombuffer(base64.b64decode(found), "<f4") if encoding == "base64" else np.array(found, np.float32)
    assert np.abs(found - expected[0]).max() < 1e-5


class TestStrangers:
    def test_a_text_is_never_opened(self, client, tiny, server):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802 - the library's name
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *words):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            texts = ["x.png", "./x.png", f"http://127.0.0.1:{other.server_port}/x.png", "<image>", "</s>", "file:x.png"]
            found = features(client.embeddings.create(model="vladva-tiny", input=texts))
            other.shutdown()
        assert np.abs(found - expected_texts(tiny, texts)).max() < 1e-5 and not asked

    @pytest.mark.parametrize(
        ("content", "status", "said"),
        [
            ('{"input": "data:image/png;base64,AAAA"}', 400, "can't be read as"),
            ('{"input": "data:image/png;base64,no base64!"}', 400, "base64"),
            ('{"input": "data:image/png,x"}', 400, "base64"),
            ('{"input": "data:application/pdf;base64,JVBERg=="}', 400, "PDF"),
            ('{"input": "data:;base64,AAAA"}', 400, "can't be read as"),
            ('{"input": " DATA:Image/PNG;base64,AAAA"}', 400, "can't be read as"),
            ('{"input": NaN}', 422, "body.input"),
            ('{"input": "a", "dimensions": NaN}', 422, "dimensions"),
            ('{"input": "a", "dimensions": 1e999}', 422, "dimensions"),
            ('{"input": "a", "dimensions": true}', 422, "dimensions"),
            ('{"input": "a", "model": "gpt-4"}', 404, "vladva-tiny"),
            ('{"input": ["a cat", "data:image/svg+xml;base64,PHN2Zz4="]}', 400, "SVG"),
            ('{"input": []}', 422, "at least 1"),
            ('{"input": [[1, 2]]}', 422, "string"),
            ('{"input": "a", "dimensions": 257}', 422, "256"),
            ('{"input": "a", "encoding_format": "int8"}', 422, "base64"),
            ("{", 422, "JSON"),
        ],
    )
    def test_bad_input_is_the_clients_fault(self, server, content, status, said):
        found, answer = post(server, content.encode())
        assert found == status and said in json.dumps(answer)

    def test_what_was_sent_does_not_come_back(self, server):
        found, answer = post(server, json.dumps({"input": [["x" * 100_000]]}).encode())
        assert found == 422 and len(json.dumps(answer)) < 1000

    def test_a_bomb_is_refused(self, server, tmp_path):
        Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
        found, answer = post(server, json.dumps({"input": data_url(tmp_path / "bomb.png")}).encode())
        assert found == 400 and "too large" in answer["detail"]


def test_many_at_once_get_their_own(server, tiny):
    texts = [f"{number} red circles" for number in range(64)]
    expected = expected_texts(tiny, texts)

    def ask(text: str) -> list[float]:
        status, answer = post(server, json.dumps({"input": text}).encode())
        assert status == 200
        return answer["data"][0]["embedding"]

    with ThreadPoolExecutor(64) as pool:
        found = np.array(list(pool.map(ask, texts)), np.float32)
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.slow
def test_more_clients_get_more_answers_a_second(server, capsys):
    """Requests that wait are computed together; server and clients share this machine's cores."""

    def ask(number: int) -> int:
        return post(server, json.dumps({"input": f"{number} red circles left of a blue square"}).encode())[0]

    def rate(clients: int, count: int = 256) -> float:
        with ThreadPoolExecutor(clients) as pool:
            start = time.perf_counter()
            assert set(pool.map(ask, range(count))) == {200}
            return count / (time.perf_counter() - start)

    rate(8)  # warm
    rates = {clients: max(rate(clients) for _ in range(2)) for clients in (1, 8, 64)}
    with capsys.disabled():
        print({clients: f"{found:.0f} requests/s" for clients, found in rates.items()}, end=" ")
    assert rates[8] > 1.2 * rates[1] and rates[64] > 1.5 * rates[1]
