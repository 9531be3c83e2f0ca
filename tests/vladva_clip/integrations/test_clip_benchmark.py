"""`clip_benchmark eval` as it is installed, on our names; what it writes is held against our own features."""

import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import clip_benchmark.cli
import clip_benchmark.models
import pytest
import torch
from clip_benchmark.model_collection import model_collection

import vladva_clip
from tests.support import adapters, fresh, hooked
from tests.support.suites import wds_folders
from vladva_clip.integrations import clip_benchmark as hook
from vladva_clip.sources import registry

TAG = registry.find("vladva-tiny").default_tag
NAMES = {"classification": "wds/shapes", "retrieval": "wds/pairs"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """task -> (directory, what it holds)."""
    root = tmp_path_factory.mktemp("wds")
    writers = {"classification": wds_folders.classification, "retrieval": wds_folders.retrieval}
    return {task: (root / task, *write(root / task)) for task, write in writers.items()}


@pytest.fixture(scope="module")
def tiny():
    model, preprocess = vladva_clip.create_model("vladva-tiny")
    return model, preprocess, vladva_clip.get_tokenizer("vladva-tiny")


@pytest.fixture(autouse=True)
def names():
    with hooked.scratch_names() as patch:
        yield patch


@pytest.fixture
def evaluate(monkeypatch, tmp_path, folders):
    """Run clip_benchmark's own command in this process, in an empty directory; returns what its result files hold."""

    def run(task: str, *arguments: str) -> dict[str, dict]:
        words = ["eval", "--dataset", NAMES[task], "--dataset_root", str(folders[task][0]), "--batch_size", "5"]
        words += ["--task", f"zeroshot_{task}", "--num_workers", "0", "--quiet", *arguments]
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words])
        monkeypatch.chdir(tmp_path)
        clip_benchmark.cli.main()
        return {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    return run


def expected_accuracy(loaded, pictures, labels) -> float:
    model, preprocess, tokenizer = loaded
    texts = [template.format(c=name) for name in wds_folders.CLASSES for template in wds_folders.TEMPLATES]
    classes = model.encode_text(tokenizer(texts), normalize=True).view(len(wds_folders.CLASSES), -1, model.embed_dim)
    images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
    scores = images @ torch.nn.functional.normalize(classes.mean(dim=1), dim=-1).T
    return (scores.argmax(dim=1) == torch.tensor(labels)).float().mean().item()


def expected_recall(loaded, pictures, captions) -> tuple[float, float]:
    """R@1 of images and of texts."""
    model, preprocess, tokenizer = loaded
    images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
    texts = model.encode_text(tokenizer([text for both in captions for text in both]), normalize=True)
    scores, own = texts @ images.T, torch.arange(len(texts)) // 2
    found_images, found_texts = scores.argmax(dim=1) == own, own[scores.argmax(dim=0)] == torch.arange(len(images))
    return found_images.float().mean().item(), found_texts.float().mean().item()


class TestCommandLine:
    def test_the_unmodified_command(self, folders, tiny, tmp_path):
        """In a process of its own, which imports nothing of ours; the results' file has clip_benchmark's own name."""
        directory, pictures, labels = folders["classification"]
        command = [sys.executable, "-m", "clip_benchmark.cli", "eval", "--model", "vladva-tiny", "--pretrained", TAG]
        command += ["--dataset", "wds/shapes", "--dataset_root", str(directory), "--task", "zeroshot_classification"]
        command += ["--num_workers", "1", "--no_amp"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / f"shapes_{TAG}_vladva-tiny_en_zeroshot_classification.json").read_text())
        assert (result["model"], result["pretrained"]) == ("vladva-tiny", TAG)
        assert result["metrics"]["acc1"] == pytest.approx(expected_accuracy(tiny, pictures, labels))

    @pytest.mark.parametrize("precision", [(), ("--no_amp",)])
    def test_retrieval(self, evaluate, folders, tiny, precision):
        """Mixed precision, clip_benchmark's default, changes nothing: the features are float32 under any autocast."""
        arguments = ("--model", "vladva-tiny", "--pretrained", TAG, "--recall_k", "1", "5", *precision)
        (result,) = evaluate("retrieval", *arguments).values()
        images, texts = expected_recall(tiny, *folders["retrieval"][1:])
        assert result["metrics"]["image_retrieval_recall@1"] == pytest.approx(images)
        assert result["metrics"]["text_retrieval_recall@1"] == pytest.approx(texts)

    def test_model_type_vladva(self, evaluate, folders, tiny):
        arguments = ("--model_type", "vladva", "--model", "vladva-tiny", "--pretrained", TAG, "--no_amp")
        (result,) = evaluate("classification", *arguments).values()
        assert result["metrics"]["acc1"] == pytest.approx(expected_accuracy(tiny, *folders["classification"][1:]))

    def test_model_type_vladva_knows_no_other_models(self, evaluate):
        with pytest.raises(ValueError, match="unknown model 'ViT-B-32-quickgelu'"):
            evaluate("classification", "--model_type", "vladva")

    def test_model_vladva_reaches_our_loader(self, evaluate, tmp_path):
        """The 7B's weights are not here, and the error says how to get on."""
        with pytest.raises(ValueError, match="llava-hf/llava-1.5-7b-hf is not in the cache.*vladva-tiny") as caught:
            evaluate("classification", "--model", "vladva", "--model_cache_dir", str(tmp_path / "cache"))
        assert isinstance(caught.value, RuntimeError)


class TestDefaultTag:
    def test_the_default_is_ours_with_one_warning(self, evaluate, caplog):
        """clip_benchmark passes laion400m_e32 when it is given no tag, and writes that into its results."""
        for _ in range(2):
            results = evaluate("retrieval", "--model", "vladva-tiny")
        said = [record.getMessage() for record in caplog.records if "laion400m_e32" in record.getMessage()]
        assert len(said) == 1 and f"default {TAG!r} is evaluated" in said[0]
        assert f"pass --pretrained {TAG}" in said[0]
        assert [result["pretrained"] for result in results.values()] == ["laion400m_e32"]

    def test_a_wrong_tag_lists_the_valid_ones(self, evaluate):
        with pytest.raises(RuntimeError, match=f"unknown tag 'laion2b_e16' of vladva-tiny; valid tags: .*{TAG}"):
            evaluate("retrieval", "--model", "vladva-tiny", "--pretrained", "laion2b_e16")

    def test_a_given_tag_is_taken_without_a_word(self, caplog):
        hook.load("vladva-tiny", TAG)
        assert not [record for record in caplog.records if "clip_benchmark" in record.getMessage()]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter of vladva-tiny."""
    directory = tmp_path_factory.mktemp("run") / "adapter"
    adapters.with_lora(vladva_clip.create_model("vladva-tiny", "base")[0]).save_pretrained(directory)
    return directory


class TestAdapters:
    def expected(self, adapter, folders):
        name = f"local-dir:{adapter}"
        loaded = (*vladva_clip.create_model(name), vladva_clip.get_tokenizer(name))
        return pytest.approx(expected_recall(loaded, *folders["retrieval"][1:]))

    def test_a_registered_name_keeps_its_results(self, evaluate, adapter, folders):
        """With clip_benchmark's own --output, which a directory as --pretrained would lead astray."""
        vladva_clip.register("my-run", adapter)
        arguments = ("--model", "my-run", "--pretrained", "registered", "--recall_k", "1")
        results = evaluate("retrieval", *arguments)
        (result,) = results.values()
        assert list(results) == ["pairs_registered_my-run_en_zeroshot_retrieval.json"]
        metrics = result["metrics"]
        found = metrics["image_retrieval_recall@1"], metrics["text_retrieval_recall@1"]
        assert found == self.expected(adapter, folders)

    @pytest.mark.parametrize("arguments", [("vladva-tiny", "{}"), ("local-dir:{}", TAG)])
    def test_a_directory_is_evaluated_with_a_warning_beforehand(self, evaluate, adapter, folders, caplog, arguments):
        model, pretrained = (argument.format(adapter) for argument in arguments)
        output = ("--output", "result.json", "--recall_k", "1")
        (result,) = evaluate("retrieval", "--model", model, "--pretrained", pretrained, *output).values()
        found = result["metrics"]["image_retrieval_recall@1"], result["metrics"]["text_retrieval_recall@1"]
        assert found == self.expected(adapter, folders)
        said = [record.getMessage() for record in caplog.records if "'/'" in record.getMessage()]
        assert len(said) == 1 and str(adapter) in said[0] and "vladva_clip.register" in said[0]


@pytest.mark.wide
class TestPatch:
    def test_once(self):
        before = dict(clip_benchmark.models.TYPE2FUNC), list(clip_benchmark.models.MODEL_TYPES)
        hook.patch(clip_benchmark.models)
        assert before == (clip_benchmark.models.TYPE2FUNC, clip_benchmark.models.MODEL_TYPES)
        assert before[1].count("vladva") == 1 and clip_benchmark.cli.MODEL_TYPES is clip_benchmark.models.MODEL_TYPES

    def test_other_models_go_their_own_way(self):
        with pytest.raises(RuntimeError, match="no-such-model"):
            clip_benchmark.models.load_clip("open_clip", "no-such-model", "laion400m_e32", None, "cpu")
        with pytest.raises(TypeError, match="no_such_argument"):
            clip_benchmark.models.TYPE2FUNC["open_clip"]("ViT-B-32", no_such_argument=1)
        model, _, tokenizer = clip_benchmark.models.load_clip("open_clip", "ViT-B-32", None, None, "cpu")
        assert type(model).__name__ == "CLIP" and type(tokenizer).__name__ == "SimpleTokenizer"

    def test_imported_before_torch(self):
        """Then our entry point is called while the module runs, too early to patch it."""
        code = (
            "from clip_benchmark.models import MODEL_TYPES, TYPE2FUNC, load_clip\n"
            "import clip_benchmark.models as m, open_clip, sys\n"
            "assert type(m.__spec__).__name__ == 'ModuleSpec'\n"
            "assert MODEL_TYPES == list(TYPE2FUNC) == ['open_clip', 'ja_clip', 'vladva'], MODEL_TYPES\n"
            f"print(type(load_clip('vladva', 'vladva-tiny', {TAG!r}, None, 'cpu')[0]).__name__)\n"
            "print(type(load_clip('open_clip', 'vladva-tiny', 'laion400m_e32', None, 'cpu')[0]).__name__)\n"
        )
        done = fresh.check(code)
        assert done.stdout == "VladvaCLIP\nVladvaCLIP\n"
        assert "won't know" not in done.stderr and TAG in done.stderr

    def test_reloaded(self, monkeypatch):
        """As a notebook does; the module's own names are made anew, those it imports are ours already."""
        for name in ("TYPE2FUNC", "MODEL_TYPES"):
            monkeypatch.setattr(clip_benchmark.models, name, getattr(clip_benchmark.models, name))
        models = importlib.reload(clip_benchmark.models)
        assert models.MODEL_TYPES == list(models.TYPE2FUNC) == ["open_clip", "ja_clip", "vladva"]
        assert not hasattr(models.TYPE2FUNC["open_clip"].__wrapped__, "__wrapped__")

    def test_its_function_is_ours_under_every_name_and_pickles(self):
        function = clip_benchmark.models.TYPE2FUNC["open_clip"]
        assert clip_benchmark.models.load_open_clip is clip_benchmark.models.open_clip.load_open_clip is function
        assert pickle.loads(pickle.dumps(function)) is function

    @pytest.mark.parametrize("names", ["nonsense", "ViT-B-32=/no/such/directory"])
    def test_where_open_clip_does_not_know_us_it_is_as_it_was(self, names):
        """Else a CLIP's name would stand for the user's directory, or be an error about a variable of ours."""
        code = (
            "import warnings\n"
            "with warnings.catch_warnings(record=True) as caught:\n"
            "    warnings.simplefilter('always'); from clip_benchmark.models import MODEL_TYPES, load_clip\n"
            "said = [str(w.message) for w in caught if 'vladva_clip' in str(w.message)]; assert len(said) == 2, said\n"
            "assert 'VLADVA_CLIP_MODELS' in said[0] or 'ViT-B-32' in said[0], said\n"
            "assert 'an earlier warning says why' in said[1], said\n"
            "assert MODEL_TYPES == ['open_clip', 'ja_clip'], MODEL_TYPES\n"
            "assert type(load_clip('open_clip', 'ViT-B-32', None, None, 'cpu')[0]).__name__ == 'CLIP'\n"
        )
        fresh.check(code, VLADVA_CLIP_MODELS=names)

    def test_collections_hold_our_names(self):
        assert ("vladva-tiny", TAG) in model_collection["openclip_all"]

    def test_results_of_several_are_built_into_one_table(self, evaluate, monkeypatch, tmp_path):
        """`clip_benchmark build`, on what `eval` wrote."""
        paths = evaluate("retrieval", "--model", "vladva-tiny", "--pretrained", TAG)
        monkeypatch.setattr(sys, "argv", ["clip_benchmark", "build", *paths, "--output", "table.csv"])
        clip_benchmark.cli.main()
        assert f"vladva-tiny {TAG}" in Path("table.csv").read_text()
