"""How clients that no test can install lightly load a model from open_clip, replayed in our own words.

Each replay makes the client's calls, with its spellings of arguments, on a name of ours; what the client then does with
the model is replayed in test_clients.py. The clients and their files are named in the docstrings.
"""

import json
import threading

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vladva_clip
from tests.support import adapters, hub_cache, samples
from vladva_clip import metrics
from vladva_clip.scenes import foils, scene
from vladva_clip.sources import registry

NAME = "vladva-tiny"
TAG = registry.find(NAME).default_tag


@pytest.fixture(scope="module")
def tiny():
    return vladva_clip.create_model(NAME, precision="fp32")[0]


@pytest.fixture(scope="module")
def picture_features(tiny):
    """A picture of odd size, and its normalized feature."""
    picture = samples.noise_picture(0, (97, 70))
    preprocess = vladva_clip.create_model(NAME)[1]
    return picture, tiny.encode_image(preprocess(picture).unsqueeze(0), normalize=True)


@pytest.fixture(scope="module")
def text_features(tiny):
    return tiny.encode_text(vladva_clip.get_tokenizer(NAME)(samples.CAPTIONS), normalize=True)


def normalized(features: torch.Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).numpy()


class TestSugarCrepe:
    def test_its_official_evaluation(self, tiny):
        """RAIVNLab/sugar-crepe, main_eval.py: by keywords; one image, two captions; the true one strictly above."""
        model, _, transform = open_clip.create_model_and_transforms(
            model_name=NAME, pretrained=TAG, cache_dir=None, device="cpu"
        )
        model = model.to("cpu")
        tokenizer = open_clip.get_tokenizer(NAME)
        model.eval()
        drawn = [scene("test", index) for index in range(4)]
        items = [(one.draw(96), positive, negative) for one in drawn for positive, negative in foils(one).values()]
        correct = 0
        for image, positive, negative in items:
            with torch.no_grad():
                image_embedding = model.encode_image(transform(image).unsqueeze(dim=0), normalize=True)
                both = [model.encode_text(tokenizer(text), normalize=True) for text in (positive, negative)]
                scores = [(image_embedding @ embedding.t()).item() for embedding in both]
            correct += 1 if scores[0] > scores[1] else 0
        images = tiny.encode_image(torch.stack([transform(image) for image, _, _ in items]), normalize=True)
        sides = [tiny.encode_text(tokenizer([item[side] for item in items]), normalize=True) for side in (1, 2)]
        expected = metrics.foil_accuracy(*[(images * side).sum(dim=1) for side in sides])
        assert correct / len(items) == pytest.approx(expected) and len(items) == 28


class TestMteb:
    def test_only_hub_ids(self, tmp_path, monkeypatch, bases):
        """mteb (MIEB), model_implementations/openclip_models.py: `hf-hub:` in front of whatever it is given."""
        written = adapters.write_adapter(bases["llava"], tmp_path / "adapter")
        hub_cache.put_adapter(tmp_path / "cache", "org/adapter", tmp_path / "adapter", bases["llava"])
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        name = "org/adapter"
        model, _, transform = open_clip.create_model_and_transforms(f"hf-hub:{name}", device="cpu")
        tokenizer = open_clip.get_tokenizer(f"hf-hub:{name}")
        model.eval()
        with torch.no_grad(), torch.autocast("cpu"):
            texts = torch.vstack([model.encode_text(tokenizer([text])).cpu() for text in samples.CAPTIONS])
            images = [transform(samples.noise_picture(seed).convert("RGB")).unsqueeze(0) for seed in range(3)]
            images = torch.vstack([model.encode_image(image).cpu() for image in images])
        assert model.visual.backbone.dtype == torch.bfloat16 and texts.dtype == images.dtype == torch.float32
        cosine = F.cosine_similarity(texts, written.encode_text(tokenizer(samples.CAPTIONS)))
        assert cosine.min() > 0.99  # bfloat16 against float32
        assert (F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T).numpy().shape == (3, len(samples.CAPTIONS))


class TestWeaviate:
    def test_download_and_serve(self, tmp_path, text_features, picture_features):
        """weaviate multi2vec-clip-inference, download.py and clip.py: looks the pair up, stores the config, locks."""
        assert (NAME, TAG) in open_clip.list_pretrained()
        model, _, preprocess = open_clip.create_model_and_transforms(NAME, pretrained=TAG, cache_dir=str(tmp_path))
        config = {"pretrained": TAG, "model": open_clip.get_model_config(NAME)}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert json.loads((tmp_path / "config.json").read_text())["model"]["embed_dim"] == model.embed_dim
        tokenizer, lock = open_clip.get_tokenizer(NAME), threading.Lock()
        with lock, torch.no_grad(), torch.autocast("cpu"):
            texts = model.encode_text(tokenizer(samples.CAPTIONS)).to("cpu")
            texts /= texts.norm(dim=-1, keepdim=True)
            image = model.encode_image(preprocess(picture_features[0]).unsqueeze(0).to(device="cpu"))
            image /= image.norm(dim=-1, keepdim=True)
        np.testing.assert_allclose(texts.tolist(), text_features.numpy(), atol=1e-5)
        np.testing.assert_allclose(image.tolist(), picture_features[1].numpy(), atol=1e-5)


class TestChroma:
    def test_its_embedding_function(self, text_features, picture_features):
        """chromadb, open_clip_embedding_function.py: by keywords, images come as arrays, one item at a time."""
        model, _, preprocess = open_clip.create_model_and_transforms(model_name=NAME, pretrained=TAG)
        model.to("cpu")
        tokenizer = open_clip.get_tokenizer(model_name=NAME)

        def embedded(features):
            features /= features.norm(dim=-1, keepdim=True)
            return features.squeeze().cpu().numpy()

        with torch.no_grad():
            texts = [embedded(model.encode_text(tokenizer(text))) for text in samples.CAPTIONS]
            array = np.array(picture_features[0])
            image = embedded(model.encode_image(preprocess(Image.fromarray(array)).unsqueeze(0).to("cpu")))
        np.testing.assert_allclose(texts, text_features.numpy(), atol=1e-5)
        np.testing.assert_allclose(image, picture_features[1][0].numpy(), atol=1e-5)


class TestFiftyone:
    def test_its_hook(self, picture_features):
        """fiftyone, utils/open_clip.py: name by position; embeddings from a hook on the layer "visual"."""
        model, _, preprocess = open_clip.create_model_and_transforms(NAME, pretrained=TAG, device="cpu")
        tokenizer, caught = open_clip.get_tokenizer(NAME), []
        layer = dict(model.named_modules())["visual"]
        layer.register_forward_hook(lambda module, inputs, output: caught.append(output))
        images = torch.stack([preprocess(picture_features[0])])
        with torch.no_grad(), torch.autocast("cpu"):
            prompts = model.encode_text(tokenizer(["a dog", "a cat"]))
            images = model.encode_image(images)
            logits = model.logit_scale.exp() * F.normalize(images, dim=1) @ F.normalize(prompts, dim=1).t()
        np.testing.assert_allclose(normalized(caught[0]), picture_features[1].numpy(), atol=1e-5)
        assert logits.shape == (1, 2)


class TestMarqo:
    @pytest.mark.parametrize("given", [{"jit": False, "precision": "fp32", "device": "cpu", "cache_dir": None}])
    def test_its_loader(self, text_features, given):
        """marqo, open_clip_model.py: create_model alone, and a transform of its own from the model's settings."""
        model = open_clip.create_model(model_name=NAME, pretrained=TAG, **given)
        config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
        transform = open_clip.transform.image_transform_v2(config, is_train=False)
        tokenizer = open_clip.get_tokenizer(NAME)
        model.eval()
        with torch.no_grad():
            texts = model.encode_text(tokenizer(samples.CAPTIONS).to("cpu")).to(torch.float32)
            texts /= texts.norm(dim=-1, keepdim=True)
            model.encode_image(transform(samples.noise_picture(0)).unsqueeze(0))
        np.testing.assert_allclose(texts.cpu().numpy(), text_features.numpy(), atol=1e-5)


class TestAllClip:
    @pytest.mark.parametrize("name", [NAME, f"{NAME}/{TAG}"])
    def test_its_loader(self, text_features, name):
        """all_clip (clip-retrieval), open_clip.py: NAME or NAME/TAG; jit by default, and a warm-up."""
        name, _, tag = name.partition("/")
        pretrained = tag or dict(open_clip.list_pretrained())[name]
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=pretrained, device="cpu", jit=True, cache_dir=None
        )
        tokenizer = open_clip.get_tokenizer(name)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            model.encode_image(torch.cat([preprocess(Image.new("RGB", (225, 225))).unsqueeze(0)] * 2))
            texts = model.encode_text(tokenizer(samples.CAPTIONS))
        np.testing.assert_allclose(normalized(texts), text_features.numpy(), atol=1e-5)
