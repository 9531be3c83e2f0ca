"""What clients rely on in the features: dtype, freshness, gradients, memory, threads, independence of the batch."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import vladva_clip
from tests.support import memory, samples


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def any_precision(request, base):
    return vladva_clip.create_model(f"local-dir:{base}", precision=request.param)[0]


@pytest.fixture(scope="module")
def own(base):
    """A model that a test may change."""
    return vladva_clip.create_model(f"local-dir:{base}", precision="fp32")[0]


@pytest.fixture
def images(model):
    return samples.image_batch(model, 3)


@pytest.fixture
def tokens(tokenizer):
    return tokenizer(samples.CAPTIONS)


def similar(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


class TestDtype:
    @pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
    def test_float32_and_the_same_values_under_autocast(self, any_precision, tokens, amp):
        model = any_precision
        images = samples.image_batch(model, 2)
        image_features, text_features = model.encode_image(images), model.encode_text(tokens)
        with torch.no_grad(), torch.autocast("cpu", dtype=amp):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == amp  # the autocast is on
            under = model.encode_image(images), model.encode_text(tokens), model(images, tokens)
        for features in (image_features, text_features, *under[:2], *under[2][:2]):
            assert features.dtype == torch.float32
        assert torch.equal(under[0], image_features)
        assert torch.equal(under[1], text_features)
        assert torch.equal(under[2][0], model.encode_image(images, normalize=True))

    def test_autocast_would_change_the_values_without_the_switch(self, model, images):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            direct = model.visual(images)  # the tower follows its caller, as the trainer needs
        assert not torch.equal(direct, model.encode_image(images))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_images_of_any_float_dtype(self, any_precision, dtype):
        images = samples.image_batch(any_precision, 2)
        features = any_precision.encode_image(images.to(dtype))
        assert features.dtype == torch.float32
        similar(features / features.norm(dim=1, keepdim=True), any_precision.encode_image(images, True), 0.02)

    @pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
    def test_half_and_float_of_the_whole_model(self, model, images, tokens, cast):
        changed = getattr(copy.deepcopy(model), cast)()
        assert changed.visual.backbone.dtype == changed.text.soft_prompt.weight.dtype == changed.logit_scale.dtype
        for found, expected in zip(changed(images, tokens), model(images, tokens), strict=True):
            assert found.isfinite().all()
            similar(found.float(), expected, 0.05)
        assert changed.encode_image(images).dtype == changed.encode_text(tokens).dtype == torch.float32

    def test_to_returns_the_model(self, own):
        assert own.to("cpu") is own
        assert own.to(torch.device("cpu")).to(torch.float32) is own


class TestFreshAndUsableInPlace:
    def test_in_place_division_and_a_second_call(self, model, images, tokens):
        for encode, inputs in ((model.encode_image, images), (model.encode_text, tokens)):
            first = encode(inputs)
            kept = first.clone()
            first /= first.norm(dim=-1, keepdim=True)
            second = encode(inputs)
            assert second.data_ptr() != first.data_ptr()
            assert torch.equal(second, kept)
            similar(first, encode(inputs, normalize=True))

    def test_no_inference_tensors_and_none_left_behind(self, base, tokenizer):
        model, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
        images, tokens = samples.image_batch(model, 2), tokenizer(["dog"])
        with torch.inference_mode():  # the very first call: whatever is made lazily is made here
            model(images, tokens)
        for features in (model.encode_image(images), model.encode_text(tokens), *model(images, tokens)[:2]):
            assert not features.is_inference()
        images.requires_grad_()
        model.encode_image(images).sum().backward()
        assert images.grad.abs().sum() > 0

    def test_inputs_are_left_alone(self, model, images, tokens):
        before = images.clone(), tokens.clone()
        model(images, tokens)
        assert torch.equal(images, before[0]) and torch.equal(tokens, before[1])


class TestFrozenAndDifferentiable:
    def test_the_factory_freezes_and_evaluates(self, any_precision):
        assert not any_precision.training
        assert not any(module.training for module in any_precision.modules())
        assert [name for name, parameter in any_precision.named_parameters() if parameter.requires_grad] == []

    def test_train_and_eval_leave_the_weights(self, own, tokenizer):
        before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
        tokens = tokenizer(["a red circle"])
        expected = own.encode_text(tokens)
        own.train()
        own.encode_text(tokens)
        own.eval()
        after = own.state_dict()
        assert list(before) == list(after)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert torch.equal(own.encode_text(tokens), expected)

    def test_gradient_reaches_every_image(self, model, images):
        images.requires_grad_()
        features = model.encode_image(images, normalize=True)
        features[:, 0].sum().backward()
        assert (images.grad.flatten(1).abs().amax(dim=1) > 0).all()
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_no_graph_without_a_differentiable_image(self, model, images, tokens):
        assert not model.encode_image(images).requires_grad  # so callers without no_grad hold no activations
        assert not model.encode_text(tokens).requires_grad

    def test_grad_checkpointing_changes_no_gradient(self, own):
        gradients = []
        own.train()
        for enable in (False, True, False):
            own.set_grad_checkpointing(enable)
            assert own.visual.backbone.lvlm.is_gradient_checkpointing == enable
            images = samples.image_batch(own, 2).requires_grad_()
            own.encode_image(images).square().sum().backward()
            gradients.append(images.grad)
        own.eval()
        torch.testing.assert_close(gradients[1], gradients[0])
        torch.testing.assert_close(gradients[2], gradients[0])

    def test_grad_checkpointing_saves_activations(self, own):
        held = []
        own.train()
        for enable in (False, True):
            own.set_grad_checkpointing(enable)
            images = samples.image_batch(own, 2).requires_grad_()
            with memory.LiveBytes() as live:
                features = own.encode_image(images)
                held.append(live.live)
            assert features.requires_grad
        own.set_grad_checkpointing(False)
        own.eval()
        assert held[1] < 0.7 * held[0], held


class TestMemory:
    """One call, however many rows, within the memory of a micro-batch."""

    @pytest.fixture
    def calls(self, model):
        shapes = []
        hook = model.visual.backbone.trunk_module.register_forward_pre_hook(
            lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        )
        yield shapes
        hook.remove()

    def texts(self, tokenizer, count):
        return tokenizer([f"a {'small ' * (row % 5)}dog {row}" for row in range(count)])

    def test_800_texts_in_micro_batches(self, model, tokenizer, calls, monkeypatch):
        tokens = self.texts(tokenizer, 800)
        whole = model.encode_text(tokens)
        calls.clear()
        monkeypatch.setattr(model.text, "micro_batch_tokens", 1024)
        similar(model.encode_text(tokens), whole, 1e-4)
        assert sum(rows for rows, _ in calls) == 800
        assert max(rows * length for rows, length in calls) <= 1024
        assert sum(rows * length for rows, length in calls) / len(calls) > 700  # and the micro-batches are well filled

    def test_images_in_micro_batches(self, model, calls, monkeypatch):
        images = samples.image_batch(model, 5)
        whole = model.encode_image(images)
        calls.clear()
        length = len(model.visual.prompts.image_row(model.visual.num_visual_tokens))
        monkeypatch.setattr(model.visual, "micro_batch_tokens", 2 * length + 1)
        similar(model.encode_image(images), whole, 1e-4)
        assert calls == [(2, length), (2, length), (1, length)]

    def test_a_row_longer_than_a_micro_batch_runs_alone(self, model, tokenizer, calls, monkeypatch):
        tokens = tokenizer(samples.CAPTIONS)
        whole = model.encode_text(tokens)
        calls.clear()
        monkeypatch.setattr(model.text, "micro_batch_tokens", 1)
        similar(model.encode_text(tokens), whole, 1e-4)
        assert [rows for rows, _ in calls] == [1] * len(samples.CAPTIONS)

    def test_peak_of_tensors_alive(self, model, tokenizer, monkeypatch):
        tokens = self.texts(tokenizer, 800)
        tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]  # so that the rows weigh little beside activations
        peaks = {}
        for name, rows, budget in (("one", 50, 1024), ("many", 800, 1024), ("unbounded", 800, 1 << 30)):
            monkeypatch.setattr(model.text, "micro_batch_tokens", budget)
            with memory.LiveBytes() as live:
                model.encode_text(tokens[-rows:])
            peaks[name] = live.peak
        overhead = 4 * (tokens.nbytes + 800 * model.embed_dim * 4)  # the rows themselves, and the results
        assert peaks["many"] < 1.5 * peaks["one"] + overhead, peaks
        assert peaks["unbounded"] > 2 * (1.5 * peaks["one"] + overhead), peaks  # so the measurement can tell


class TestThreadsAndHistory:
    def test_eight_threads_mixed(self, model, tokenizer):
        def work(index):
            if index % 2:
                return model.encode_text(tokenizer(samples.CAPTIONS[: 1 + index % 5]), normalize=True)
            return model.encode_image(samples.image_batch(model, 1 + index % 3, seed=index), normalize=True)

        serial = [work(index) for index in range(24)]
        with ThreadPoolExecutor(8) as pool:
            for found, expected in zip(pool.map(work, range(24)), serial, strict=True):
                assert torch.equal(found, expected)

    @pytest.mark.parametrize("image_batch_size", [1, 4])
    def test_text_after_an_image_batch_of_any_size(self, base, tokenizer, image_batch_size):
        fresh, _ = vladva_clip.create_model(f"local-dir:{base}", precision="fp32")
        expected = {n: fresh.encode_text(tokenizer(["a red dog"] * n)) for n in (1, 2, 3, 4, 6)}
        for count, before in expected.items():
            fresh.encode_image(samples.image_batch(fresh, image_batch_size))
            assert torch.equal(fresh.encode_text(tokenizer(["a red dog"] * count)), before)

    def test_image_after_text(self, model, tokenizer, images):
        before = model.encode_image(images)
        model.encode_text(tokenizer(samples.CAPTIONS))
        assert torch.equal(model.encode_image(images), before)


class TestIndependence:
    """Normalised features depend on nothing but their own row."""

    def test_of_the_batch_size(self, model, images, tokens):
        together = model(images, tokens)[:2]
        for inputs, encode, features in zip(
            (images, tokens), (model.encode_image, model.encode_text), together, strict=True
        ):
            alone = torch.cat([encode(row[None], normalize=True) for row in inputs])
            similar(alone, features)
            assert (features[0] - features[1]).abs().max() > 1e-3  # rows differ by far more than the tolerance

    def test_of_the_order(self, model, images, tokens):
        features = model.encode_text(tokens, normalize=True)
        order = torch.tensor([3, 0, 4, 2, 1])
        similar(model.encode_text(tokens[order], normalize=True), features[order])
        similar(model.encode_image(images.flip(0), normalize=True), model.encode_image(images, True).flip(0))

    def test_of_the_padding(self, model, tokenizer):
        short, long = "a red dog", "a red circle left of the " * 12
        alone = model.encode_text(tokenizer([short], 16), normalize=True)
        for batch in ([short, long], [long, short], [short, short, long]):
            for width in (77, 256):
                features = model.encode_text(tokenizer(batch, width), normalize=True)
                similar(features[batch.index(short)], alone[0])

    def test_of_worker_processes(self, model, preprocess, tokenizer):
        found = []
        for workers in (0, 2):
            loader = torch.utils.data.DataLoader(
                samples.Pairs(preprocess, tokenizer), batch_size=4, num_workers=workers
            )
            pairs = [model(images, tokens)[:2] for images, tokens in loader]
            found.append([torch.cat(side) for side in zip(*pairs, strict=True)])
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
        assert found[0][0].shape == (6, model.embed_dim)


class TestCopies:
    def test_whole_model(self, model, images, tokens):
        expected = model(images, tokens)
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert copied.text.backbone is copied.visual.backbone is not model.visual.backbone
            for found, feature in zip(copied(images, tokens), expected, strict=True):
                assert torch.equal(found, feature)
            with torch.no_grad():
                copied.logit_scale.add_(1)
            assert copied.logit_scale != model.logit_scale
        assert torch.equal(model(images, tokens)[0], expected[0])  # nor has the copied model changed

    def test_a_loaded_state_dict(self, model, own, images):
        with torch.no_grad():
            own.visual.soft_prompt.weight.add_(0.5)
        assert not torch.equal(own.encode_image(images), model.encode_image(images))
        own.load_state_dict(model.state_dict())
        assert torch.equal(own.encode_image(images), model.encode_image(images))


class TestEmpty:
    def test_no_texts_and_no_images(self, model, tokenizer):
        tokens, images = tokenizer([]), samples.image_batch(model, 0)
        assert tokens.shape == (0, model.context_length) and tokens.dtype == torch.int64
        for normalize in (False, True):
            for features in (model.encode_text(tokens, normalize), model.encode_image(images, normalize)):
                assert features.shape == (0, model.embed_dim) and features.dtype == torch.float32
        image_logits, text_logits = model.get_logits(samples.image_batch(model, 2), tokens)
        assert image_logits.shape == (2, 0) and text_logits.shape == (0, 2)
