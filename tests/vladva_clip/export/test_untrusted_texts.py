"""An export for texts of strangers: sentence-transformers opens none of them."""

import base64
import http.server
import threading

import pytest
import torch

from tests.support import exports

SAME = 0.99999


@pytest.fixture(scope="module")
def exported(bases, tmp_path_factory):
    return exports.export(f"local-dir:{bases['llava']}", tmp_path_factory.mktemp("out") / "out", untrusted_texts=True)


@pytest.fixture(scope="module")
def sentences(exported):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(exported.directory), device="cpu")


@pytest.fixture
def address():
    """Of a server on this machine, and the paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/x.png", asked
    server.shutdown()
    server.server_close()


def test_paths_and_addresses_of_pictures_are_texts(exported, sentences, address, tmp_path):
    url, asked = address
    exported.images[0].save(tmp_path / "x.png")
    inline = "data:image/png;base64," + base64.b64encode((tmp_path / "x.png").read_bytes()).decode()
    texts = ["a red circle", str(tmp_path / "x.png"), url, inline[:120]]
    with torch.no_grad():
        ours = exported.model.encode_text(exported.tokenizer(texts), True)
    assert exports.cosine(sentences.encode(texts, convert_to_tensor=True), ours) > SAME
    assert not asked


def test_pictures_come_as_messages(exported, sentences):
    found = sentences.encode(exports.messages(exported.images), convert_to_tensor=True)
    assert exports.cosine(found, exported.features()[0]) > SAME
    with pytest.raises(ValueError, match="Modality 'image' is not supported"):
        sentences.encode(exported.images)


def test_the_default_opens_them(bases, tmp_path):
    """So that the option has something to switch off."""
    from sentence_transformers import SentenceTransformer

    usual = exports.export(f"local-dir:{bases['llava']}", tmp_path / "out")
    usual.images[0].save(tmp_path / "x.png")
    found = SentenceTransformer(str(usual.directory), device="cpu").encode([str(tmp_path / "x.png")])
    assert exports.cosine(torch.from_numpy(found), usual.features()[0][:1]) > SAME
