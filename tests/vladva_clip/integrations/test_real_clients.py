"""Installed client code on our names, through open_clip: none of it knows vladva_clip.

clip-interrogator is among the test dependencies; lancedb and langchain-experimental bring many packages and are in the
extra `clients`, which `make test-all` installs. Clients that can't be installed lightly are replayed in test_clients.py
and test_client_loading.py.
"""

import argparse
import io

import numpy as np
import open_clip
import open_clip_train.zero_shot
import pytest
import torch
from open_clip_train.data import DataInfo
from PIL import Image
from torch.utils.data import DataLoader

import vladva_clip
from tests.support import fresh, samples
from vladva_clip.sources import registry

TAG = registry.find("vladva-tiny").default_tag
TEXTS = ["a red square", "a blue square on a green ground", "squares"]


@pytest.fixture(scope="module")
def tiny():
    model, preprocess = vladva_clip.create_model("vladva-tiny", precision="fp32")
    return model, preprocess, vladva_clip.get_tokenizer("vladva-tiny")


@pytest.fixture(scope="module")
def pictures():
    return [samples.picture(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def text_vectors(tiny):
    model, _, tokenizer = tiny
    return model.encode_text(tokenizer(TEXTS), normalize=True).numpy()


@pytest.fixture(scope="module")
def image_vectors(tiny, pictures):
    model, preprocess, _ = tiny
    return model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True).numpy()


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class TestOpenClipTrain:
    def test_zero_shot_eval(self, tiny, monkeypatch, pictures):
        """Its own evaluation, which finds the tokenizer by the model's name; ImageNet is cut to six classes."""
        names = ["red square", "green square", "blue square", "yellow square", "circle", "cat"]
        monkeypatch.setattr(open_clip_train.zero_shot, "IMAGENET_CLASSNAMES", names)
        monkeypatch.setattr(open_clip_train.zero_shot, "OPENAI_IMAGENET_TEMPLATES", [lambda c: f"a {c}.", str])
        settings = {"precision": "fp32", "device": torch.device("cpu"), "jit": False, "force_image_size": None}
        model, _, preprocess = open_clip.create_model_and_transforms("vladva-tiny", TAG, output_dict=True, **settings)
        images, labels = torch.stack([preprocess(picture) for picture in pictures]), torch.arange(4)
        args = {"zeroshot_frequency": 1, "epochs": 1, "distributed": False, "horovod": False, "rank": 0}
        args = argparse.Namespace(**args, model="vladva-tiny", device="cpu", precision="fp32", batch_size=3)
        loader = DataLoader(list(zip(images, labels, strict=True)), batch_size=3)
        results = open_clip_train.zero_shot.zero_shot_eval(model, {"imagenet-val": DataInfo(loader)}, 1, args)
        ours, _, tokenizer = tiny
        rows = ours.encode_text(tokenizer([text for c in names for text in (f"a {c}.", c)]), normalize=True)
        classes = torch.nn.functional.normalize(rows.view(len(names), 2, -1).mean(dim=1), dim=-1)
        ranks = (ours.encode_image(images) @ classes.T).argsort(dim=1, descending=True)
        for k in (1, 5):
            expected = (ranks[:, :k] == labels[:, None]).any(dim=1).float().mean().item()
            assert results[f"imagenet-zeroshot-val-top{k}"] == pytest.approx(expected)

    @pytest.mark.slow
    def test_its_main(self, tmp_path, pictures):
        """The whole command, evaluating only; in a process of its own, as it sets up logging and seeds."""
        names = ["red square", "green square", "blue square", "yellow square", "circle", "cat"]
        for number, picture in enumerate(pictures):
            folder = tmp_path / "val" / f"class{number}"
            folder.mkdir(parents=True)
            picture.save(folder / "0.png")
        code = f"""
import open_clip_train.zero_shot as zero_shot
zero_shot.IMAGENET_CLASSNAMES, zero_shot.OPENAI_IMAGENET_TEMPLATES = {names!r}, [str]
from open_clip_train.main import main
main("--model vladva-tiny --imagenet-val {tmp_path}/val --workers 0 --batch-size 3 --logs {tmp_path}".split())
"""
        done = fresh.check(code)
        assert "imagenet-zeroshot-val-top1: " in done.stderr


@pytest.fixture(scope="module")
def interrogator(tmp_path_factory):
    """Without its captioner, and with short lists of words in place of its hundred thousand."""
    import clip_interrogator

    lists = tmp_path_factory.mktemp("lists")
    for name in ("artists", "flavors", "mediums", "movements", "negative"):
        (lists / f"{name}.txt").write_text("\n".join(f"{name} {word}" for word in ("red", "blue", "green")))
    assert f"vladva-tiny/{TAG}" in clip_interrogator.list_clip_models()
    options = {"caption_model_name": None, "download_cache": False, "cache_path": str(lists), "device": "cpu"}
    config = clip_interrogator.Config(
        clip_model_name=f"vladva-tiny/{TAG}", data_path=str(lists), chunk_size=64, quiet=True, **options
    )
    return clip_interrogator.Interrogator(config)


class TestClipInterrogator:
    def test_it_loaded_our_model(self, interrogator, tiny, pictures, image_vectors):
        assert isinstance(interrogator.clip_model, vladva_clip.VladvaCLIP)
        features = interrogator.image_to_features(pictures[0])
        np.testing.assert_allclose(features.numpy(), image_vectors[:1], atol=1e-5)
        similarities = interrogator.similarities(features, TEXTS)
        assert similarities == pytest.approx([interrogator.similarity(features, text) for text in TEXTS], abs=1e-5)

    def test_its_tables_hold_our_features(self, interrogator, tiny):
        model, _, tokenizer = tiny
        table = interrogator.flavors
        expected = model.encode_text(tokenizer(table.labels), normalize=True).half().float().numpy()
        np.testing.assert_allclose(np.stack(table.embeds), expected, atol=1e-3)

    def test_a_prompt(self, interrogator, pictures):
        for prompt in (
            interrogator.interrogate_fast(pictures[0], max_flavors=4, caption="a square"),
            interrogator.interrogate_classic(pictures[0], caption="a square"),
            interrogator.interrogate(pictures[0], min_flavors=1, max_flavors=2, caption="a square"),
        ):
            assert prompt.startswith("a square")
        assert interrogator.interrogate_negative(pictures[0], max_flavors=2)


@pytest.fixture(scope="module")
def lancedb():
    return pytest.importorskip("lancedb", reason="in the extra `clients`")


class TestLanceDB:
    def test_its_open_clip_function(self, lancedb, pictures, text_vectors, image_vectors):
        from lancedb.embeddings import get_registry

        function = get_registry().get("open-clip").create(name="vladva-tiny", pretrained=TAG)
        assert function.ndims() == text_vectors.shape[1]
        found = np.stack(function.compute_source_embeddings([png(picture) for picture in pictures]))  # in threads
        np.testing.assert_allclose(found, image_vectors, atol=1e-5)
        np.testing.assert_allclose(function.compute_query_embeddings(TEXTS[0])[0], text_vectors[0], atol=1e-5)

    def test_a_table_searched_by_text(self, lancedb, tmp_path, pictures, text_vectors, image_vectors):
        from lancedb.embeddings import get_registry
        from lancedb.pydantic import LanceModel, Vector

        function = get_registry().get("open-clip").create(name="vladva-tiny", pretrained=TAG)

        class Picture(LanceModel):
            number: int
            data: bytes = function.SourceField()
            vector: Vector(function.ndims()) = function.VectorField()

        table = lancedb.connect(str(tmp_path)).create_table("pictures", schema=Picture)
        table.add([{"number": number, "data": png(picture)} for number, picture in enumerate(pictures)])
        for text, vector in zip(TEXTS, text_vectors, strict=True):
            best = table.search(text).limit(len(pictures)).to_list()
            assert [row["number"] for row in best] == list(np.argsort(-(image_vectors @ vector), kind="stable"))


class TestLangchain:
    def test_its_open_clip_embeddings(self, tmp_path, pictures, text_vectors, image_vectors):
        module = pytest.importorskip("langchain_experimental.open_clip", reason="in the extra `clients`")
        embeddings = module.OpenCLIPEmbeddings(model_name="vladva-tiny", checkpoint=TAG)
        np.testing.assert_allclose(embeddings.embed_documents(TEXTS), text_vectors, atol=1e-5)
        np.testing.assert_allclose(embeddings.embed_query(TEXTS[1]), text_vectors[1], atol=1e-5)
        paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path)
        np.testing.assert_allclose(embeddings.embed_image([str(path) for path in paths]), image_vectors, atol=1e-5)
