"""Real client code where it is light, and the other clients' calls in their order, on our model object.

A replay names the client, and does in our own words what it calls, in which order, and what it does to the result.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval
from open_clip.zero_shot_classifier import build_zero_shot_classifier_legacy
from open_clip_train import zero_shot as open_clip_train_zero_shot
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import CenterCrop, Normalize

import vladva_clip
from tests.support import samples

CLASSES = ["red circle", "green square", "blue dog", "yellow cat", "small dog", "large cat"]
TEMPLATES = ["a {}", "the {} on the left", lambda name: f"a small {name}"]


@pytest.fixture(scope="module")
def images(model, preprocess):
    return torch.stack([preprocess(samples.noise_picture(seed)) for seed in range(6)])


class Labeled(Dataset):
    """(image, label) pairs with class names, as clip_benchmark's data sets."""

    classes = CLASSES

    def __init__(self, images, labels) -> None:
        self.pairs = list(zip(images, labels, strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


@pytest.fixture(scope="module")
def candidates(preprocess):
    pictures = [samples.picture(seed) for seed in range(24)]
    return torch.stack([preprocess(picture) for picture in pictures])


def clear_cases(model, candidates, classifier):
    """Six images whose best class leads by so much that bfloat16 logits agree; labels, of which the first is wrong."""
    logits = 100 * model.encode_image(candidates, normalize=True) @ classifier
    best = logits.topk(2, dim=1)
    chosen = (best.values[:, 0] - best.values[:, 1]).argsort(descending=True)[:6]
    labels = best.indices[chosen, 0]
    labels[0] = (labels[0] + 1) % len(CLASSES)
    return candidates[chosen], labels


class TestOpenClip:
    def test_classifier_builders_agree(self, model, tokenizer):
        expected = []
        for name in CLASSES:
            rows = [f"a {name}", f"the {name} on the left", f"a small {name}"]
            mean = model.encode_text(tokenizer(rows), normalize=True).mean(dim=0)
            expected.append(mean / mean.norm())
        texts = [TEMPLATES[0].format, TEMPLATES[1].format, TEMPLATES[2]]
        for build, options in (
            (vladva_clip.build_zero_shot_classifier, {}),
            (vladva_clip.build_zero_shot_classifier, {"num_classes_per_batch": 4}),
            (vladva_clip.build_zero_shot_classifier, {"num_classes_per_batch": None}),
            (build_zero_shot_classifier_legacy, {}),
        ):
            found = build(model, tokenizer, CLASSES, texts, **options)
            assert found.shape == (model.embed_dim, len(CLASSES))
            torch.testing.assert_close(found, torch.stack(expected, dim=1), rtol=0, atol=1e-5)

    def test_the_builder_of_open_clip_4(self, model, tokenizer, monkeypatch):
        """It calls the model, not encode_text, and takes the second of a tuple or the key of a dict."""
        rows = tokenizer([f"a {name}" for name in CLASSES])
        for as_dict in (False, True):
            monkeypatch.setattr(model, "output_dict", as_dict)
            output = model(text=rows)
            features = output["text_features"] if as_dict else output[1]
            assert torch.equal(features, model.encode_text(rows, normalize=True))

    @pytest.mark.parametrize("precision", ["fp32", "amp", "amp_bf16"])
    def test_open_clip_train_zero_shot(self, model, tokenizer, candidates, precision, monkeypatch):
        classifier = vladva_clip.build_zero_shot_classifier(model, tokenizer, CLASSES, ["a {}"])
        images, labels = clear_cases(model, candidates, classifier)
        args = argparse.Namespace(device="cpu", precision=precision, batch_size=4)
        for as_dict in (False, True):
            monkeypatch.setattr(model, "output_dict", as_dict)
            loader = DataLoader(Labeled(images, labels), batch_size=4)
            with torch.no_grad():
                top1, top5 = open_clip_train_zero_shot.run(model, classifier, loader, args)
            assert top1 == pytest.approx(5 / 6) and top5 >= top1

    def test_open_clip_train_loss(self, model, tokenizer, images, monkeypatch):
        """The trainer passes the output dict on to the loss as keywords and clamps and reads the logit scale."""
        monkeypatch.setattr(model, "output_dict", True)
        output = model(images[:5], tokenizer(samples.CAPTIONS))
        loss = open_clip.ClipLoss()(**output)
        logits = output["logit_scale"] * output["image_features"] @ output["text_features"].T
        expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
        torch.testing.assert_close(loss, expected)
        assert 0 < model.logit_scale.item() < np.log(100) and model.logit_scale.exp().mean() > 1

    def test_open_clip_train_rows_from_workers(self, model, preprocess, tokenizer):
        """CsvDataset tokenizes one caption at a time and lets the default collate stack the rows."""
        loader = DataLoader(samples.Pairs(preprocess, tokenizer, 4), batch_size=4, num_workers=1)
        images, tokens = next(iter(loader))
        assert tokens.shape == (4, model.context_length)
        assert torch.equal(model.encode_text(tokens), model.encode_text(tokenizer(samples.CAPTIONS[:4])))
        assert images.shape == (4, 3, *model.visual.image_size)

    def test_open_clips_config_helpers(self, model):
        """What push_to_hf_hub reads from a model, through open_clip's own functions."""
        cfg = open_clip.get_model_preprocess_cfg(model)
        assert cfg["size"] == model.visual.image_size[0] and tuple(cfg["mean"]) == model.visual.image_mean
        assert open_clip.get_model_tokenize_cfg(model) == {"context_length": 256, "vocab_size": model.vocab_size}
        cfg = open_clip.transform.PreprocessCfg(**cfg)
        if cfg.interpolation == "lanczos":  # which open_clip has not: its own transform is refused, not made otherwise
            with pytest.raises(AssertionError):
                open_clip.transform.image_transform_v2(cfg, is_train=False)
            return
        transform = open_clip.transform.image_transform_v2(cfg, is_train=False)
        assert transform(samples.noise_picture(0)).shape == (3, *model.visual.image_size)


class TestClipBenchmark:
    @pytest.mark.parametrize("amp", [True, False])
    def test_classification(self, model, tokenizer, candidates, amp):
        templates = ["a {c}", "the {c} on the left"]
        plain = [template.replace("{c}", "{}") for template in templates]
        classifier = build_zero_shot_classifier_legacy(model, tokenizer, CLASSES, plain)
        images, labels = clear_cases(model, candidates, classifier)
        loader = DataLoader(Labeled(images, labels), batch_size=4)
        metrics = zeroshot_classification.evaluate(model, loader, tokenizer, CLASSES, templates, "cpu", amp=amp)
        assert metrics["acc1"] == pytest.approx(5 / 6)
        assert metrics["acc5"] >= metrics["acc1"] and 0 < metrics["mean_per_class_recall"] < 1

    @pytest.mark.parametrize("amp", [True, False])
    def test_retrieval(self, model, tokenizer, images, amp):
        captions = [[text, f"{text} on the left"] for text in samples.CAPTIONS]
        batches = [(images[start : start + 2], captions[start : start + 2]) for start in (0, 2, 4)]
        batches[2] = (images[4:5], captions[4:5])
        metrics = zeroshot_retrieval.evaluate(model, batches, tokenizer, "cpu", amp=amp, recall_k_list=[1, 5])
        similarity = (
            model.encode_text(tokenizer([text for pair in captions for text in pair]), normalize=True)
            @ model.encode_image(images[:5], normalize=True).T
        )  # (10, 5)
        right = torch.arange(10) // 2
        assert metrics["image_retrieval_recall@1"] == pytest.approx((similarity.argmax(1) == right).float().mean())
        best = similarity.argmax(dim=0)
        assert metrics["text_retrieval_recall@1"] == pytest.approx((right[best] == torch.arange(5)).float().mean())
        assert metrics["image_retrieval_recall@5"] == 1.0  # of five images

    @pytest.mark.parametrize("amp", [True, False])
    @pytest.mark.parametrize("images_each", [1, 2])
    def test_image_caption_selection(self, model, tokenizer, images, images_each, amp):
        captions = [samples.CAPTIONS[:2], samples.CAPTIONS[2:4], [samples.CAPTIONS[4], samples.CAPTIONS[0]]]
        stacked = images[::2] if images_each == 1 else images.view(3, 2, *images.shape[1:])
        loader = [(stacked[:2], captions[:2]), (stacked[2:], captions[2:])]
        metrics = image_caption_selection.evaluate(model, loader, tokenizer, "cpu", amp=amp)
        right = []
        for each, texts in zip(images.view(3, 2, *images.shape[1:]), captions, strict=True):
            each = each[:images_each]
            scores = model.encode_image(each, True) @ model.encode_text(tokenizer(texts), True).T
            right.append(bool((scores.argmax(dim=1) == torch.arange(images_each)).all()))
        assert metrics["text_acc"] == pytest.approx(np.mean(right))
        assert set(metrics) == {"image_acc", "text_acc", "acc"}

    def test_imagenet_w_finds_its_steps(self, preprocess):
        """It inserts a watermark between the crop and the normalization, found by class."""
        kinds = [type(step) for step in preprocess.transforms]
        assert Normalize in kinds
        if CenterCrop in kinds:
            assert kinds.index(CenterCrop) < kinds.index(Normalize)


class TestReplays:
    """Each client's own order of calls."""

    def test_readme_of_open_clip(self, model, preprocess, tokenizer):
        image = preprocess(samples.picture(0)).unsqueeze(0)
        text = tokenizer(["a diagram", "a dog", "a cat"])
        with torch.no_grad(), torch.autocast("cpu"):
            image_features, text_features = model.encode_image(image), model.encode_text(text)
            image_features /= image_features.norm(dim=-1, keepdim=True)
            text_features /= text_features.norm(dim=-1, keepdim=True)
            probabilities = (100.0 * image_features @ text_features.T).softmax(dim=-1)
        assert probabilities.shape == (1, 3)
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-2)

    def test_lancedb(self, base, model, preprocess, tokenizer):
        """Never evals; a thread pool calls encode_image one by one; `ndims` comes from one text."""
        loaded, _, transform = vladva_clip.create_model_and_transforms(
            f"local-dir:{base}", pretrained=None, precision="fp32"
        )
        loaded.to("cpu")

        def embed(seed):
            features = loaded.encode_image(transform(samples.noise_picture(seed)).unsqueeze(0))
            features /= features.norm(dim=-1, keepdim=True)
            return features.cpu().numpy().squeeze()

        with torch.no_grad(), ThreadPoolExecutor(4) as pool:
            vectors = np.stack(list(pool.map(embed, range(8))))
        one = torch.stack([preprocess(samples.noise_picture(seed)) for seed in range(8)])
        np.testing.assert_allclose(vectors, model.encode_image(one, normalize=True).numpy(), atol=1e-5)
        with torch.no_grad():
            text = loaded.encode_text(tokenizer(["foo"]))
            text /= text.norm(dim=-1, keepdim=True)
        assert text.cpu().numpy().squeeze().shape == (loaded.embed_dim,)

    def test_langchain(self, model, preprocess, tokenizer):
        """A bare string to the tokenizer, no no_grad, no eval, lists of floats."""
        features = model.encode_text(tokenizer("a red dog"))
        features = features / features.norm(p=2, dim=1, keepdim=True)
        vector = features.squeeze(0).tolist()
        assert len(vector) == model.embed_dim and sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)
        image = model.encode_image(preprocess(samples.picture(0)).unsqueeze(0))
        assert len((image / image.norm(p=2, dim=1, keepdim=True)).squeeze(0).tolist()) == model.embed_dim

    def test_chroma(self, model, preprocess, tokenizer):
        """One item at a time, divided in place, squeezed to numpy; images come as arrays."""
        with torch.no_grad():
            for features in (
                model.encode_text(tokenizer("dog")),
                model.encode_image(preprocess(Image.fromarray(np.asarray(samples.picture(0)))).unsqueeze(0)),
            ):
                features /= features.norm(dim=-1, keepdim=True)
                vector = features.squeeze().cpu().numpy()
                assert vector.shape == (model.embed_dim,) and vector.dtype == np.float32
                assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

    def test_clip_interrogator(self, model, preprocess, tokenizer):
        """Tokenizes numpy arrays, keeps half-precision numpy, and grows a prompt until the last token is not 0."""
        labels = np.array_split(np.array(CLASSES), 2)
        rows = []
        for chunk in labels:
            with torch.no_grad(), torch.autocast("cpu"):
                features = model.encode_text(tokenizer(chunk))
                features /= features.norm(dim=-1, keepdim=True)
                rows.extend(features.half().cpu().numpy())
        assert len(rows) == len(CLASSES) and rows[0].dtype == np.float16
        table = torch.from_numpy(np.stack(rows))
        expected = model.encode_text(tokenizer(CLASSES), normalize=True).half()
        torch.testing.assert_close(table, expected, rtol=0, atol=1e-3)
        image = model.encode_image(preprocess(samples.picture(0)).unsqueeze(0), normalize=True).half()
        assert (image @ table.T).shape == (1, len(CLASSES))

        def at_capacity(text):
            return tokenizer([text])[0][-1] != 0

        assert not at_capacity("a red dog")
        assert at_capacity("a red dog " * 200)
        assert not at_capacity("")
        offloaded = model.to("cpu")
        assert offloaded.encode_text(tokenizer("dog")).device.type == "cpu"

    def test_mteb(self, model, preprocess, tokenizer):
        """Batches moved to the CPU, stacked by torch.vstack, then numpy and cosine in numpy."""
        with torch.no_grad():
            texts = torch.vstack([model.encode_text(tokenizer([text])).cpu() for text in samples.CAPTIONS])
            images = torch.vstack(
                [model.encode_image(preprocess(samples.noise_picture(s)).unsqueeze(0)).cpu() for s in range(3)]
            )
        assert texts.numpy().dtype == images.numpy().dtype == np.float32
        cosine = F.normalize(images, dim=-1).numpy() @ F.normalize(texts, dim=-1).numpy().T
        assert cosine.shape == (3, len(samples.CAPTIONS)) and np.abs(cosine).max() <= 1 + 1e-5

    def test_fiftyone(self, model, preprocess, tokenizer):
        """Takes embeddings from a forward hook on the layer named "visual", logits from the scale's exp."""
        caught = {}
        layer = dict(model.named_modules())["visual"]
        hook = layer.register_forward_hook(lambda module, inputs, output: caught.update(out=output))
        try:
            with torch.no_grad(), torch.autocast("cpu"):
                images = preprocess(samples.picture(0)).unsqueeze(0)
                features = model.encode_image(images)
                text = model.encode_text(tokenizer(["a dog", "a cat"]))
        finally:
            hook.remove()
        embedding = caught["out"].detach().cpu().numpy()
        assert embedding.shape == (1, model.embed_dim) and np.array_equal(embedding, features.numpy())
        features = features / features.norm(dim=1, keepdim=True)
        logits = model.logit_scale.exp() * features @ (text / text.norm(dim=1, keepdim=True)).T
        assert logits.shape == (1, 2) and np.isfinite(logits.detach().cpu().numpy()).all()

    def test_weaviate(self, model, preprocess, tokenizer):
        """Looks the pair up, dumps the config, encodes in a thread pool under autocast, lists of floats."""
        assert ("vladva-2b", "training_free") in vladva_clip.list_pretrained()
        assert json.loads(json.dumps(vladva_clip.get_model_config("vladva-2b")))["embed_dim"] == 1536

        def vectorise(text):
            with torch.no_grad(), torch.autocast("cpu"):
                features = model.encode_text(tokenizer([text])).to("cpu")
                features /= features.norm(dim=-1, keepdim=True)
            return features.tolist()[0]

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(vectorise, samples.CAPTIONS))
        expected = model.encode_text(tokenizer(samples.CAPTIONS), normalize=True)
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)

    def test_marqo(self, model, preprocess, tokenizer):
        with torch.no_grad(), torch.autocast("cpu"):
            features = model.encode_text(tokenizer(["a dog"])).to(torch.float32)
            features /= features.norm(dim=-1, keepdim=True)
        assert features.cpu().numpy().shape == (1, model.embed_dim)

    def test_sugar_crepe(self, model, preprocess, tokenizer):
        """Normalized on request; the true caption must score strictly higher, so a tie is wrong."""
        with torch.no_grad():
            image = model.encode_image(preprocess(samples.picture(0)).unsqueeze(dim=0), normalize=True)

            def score(text):
                return (image @ model.encode_text(tokenizer(text), normalize=True).t()).squeeze()

            first, second = score("a red circle left of a blue square"), score("a blue circle left of a red square")
            assert (first > second) != (second > first)  # word order decides
            assert not score("a dog") > score("a dog")

    def test_sugar_crepe_plus_plus(self, model, preprocess, tokenizer):
        """Never uses no_grad, and compares with CosineSimilarity."""
        image = model.encode_image(preprocess(samples.picture(0)).unsqueeze(dim=0), normalize=True)
        texts = model.encode_text(tokenizer(samples.CAPTIONS[:3]), normalize=True)
        similarity = torch.nn.CosineSimilarity(dim=1)(image, texts)
        torch.testing.assert_close(similarity, (image @ texts.T)[0])
        assert float(similarity[0].numpy()) == similarity[0].item()  # a graph would refuse .numpy()

    def test_clip_retrieval(self, model, preprocess, tokenizer):
        """Bound methods taken off the model, rows from workers, in place, half numpy written to disk."""
        encode_image, encode_text = model.encode_image, model.encode_text
        loader = DataLoader(samples.Pairs(preprocess, tokenizer, 4), batch_size=2, num_workers=1)
        for images, tokens in loader:
            with torch.no_grad():
                for features in (encode_image(images), encode_text(tokens)):
                    features /= features.norm(dim=-1, keepdim=True)
                    stored = features.cpu().to(torch.float16).numpy()
                    assert stored.shape == (2, model.embed_dim) and np.isfinite(stored).all()

    def test_all_clip(self, base, model):
        """jit=True, a warm-up of both sides, and the last listed tag of a model as its default."""
        loaded, _, transform = vladva_clip.create_model_and_transforms(
            f"local-dir:{base}", pretrained=None, precision="fp32", device="cpu", jit=True, cache_dir=None
        )
        tokenizer = vladva_clip.get_tokenizer(f"local-dir:{base}")
        with torch.no_grad():
            loaded.encode_image(torch.cat([transform(samples.picture(0)).unsqueeze(0)] * 2))
            found = loaded.encode_text(tokenizer(["dog"] * 2))
        torch.testing.assert_close(found[0], model.encode_text(tokenizer("dog"))[0], rtol=0, atol=1e-4)
        assert dict(vladva_clip.list_pretrained())["vladva"] == "training_free"

    def test_aro(self, model, preprocess, tokenizer):
        """Everything in numpy, joined along the rows."""
        with torch.no_grad():
            texts = np.concatenate([model.encode_text(tokenizer(samples.CAPTIONS)).cpu().numpy()] * 2, axis=0)
        assert texts.shape == (2 * len(samples.CAPTIONS), model.embed_dim)

    def test_guidance(self, model, preprocess, tokenizer):
        """Follows the gradient of a similarity down to the pixels."""
        picture = preprocess(samples.picture(0)).unsqueeze(0)
        target = model.encode_text(tokenizer("a red circle"), normalize=True)
        scores = []
        for _ in range(4):
            picture = picture.detach().requires_grad_()
            score = (model.encode_image(picture, normalize=True) @ target.T).sum()
            score.backward()
            scores.append(score.item())
            picture = picture + 0.5 * picture.grad / picture.grad.norm()
        assert scores == sorted(scores) and scores[-1] > scores[0]
