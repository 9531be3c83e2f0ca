"""The class that docs/mteb.md shows, run by mteb's own evaluators on tasks of drawn scenes, against direct scores."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vladva_clip
from vladva_clip.scenes import foils, scenes, short_captions
from vladva_clip.sources import registry

mteb = pytest.importorskip("mteb", reason="the extra `mteb`, which `make test-wide` installs")
pytestmark = pytest.mark.wide

from datasets import Dataset, DatasetDict  # noqa: E402
from mteb.abstasks import AbsTaskRetrieval, AbsTaskZeroShotClassification  # noqa: E402
from mteb.abstasks.image.image_text_pair_classification import AbsTaskImageTextPairClassification  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.types import PromptType  # noqa: E402

PAGE = Path(__file__).parents[3] / "docs/mteb.md"
SCENES = scenes("heldout", 0, 24)  # difficult ones: scores are neither 0 nor 1
PICTURES = [scene.draw(64) for scene in SCENES]
CAPTIONS = [short_captions(scene)[0] for scene in SCENES]
FOILS = [foils(scene)["swap_obj"] for scene in SCENES]  # (true caption, false one)
CLASSES = sorted({f"a {color} {shape}" for scene in SCENES for color, shape in [scene.objects[0].pair]})
ABOUT = {
    "description": "Drawn scenes.",
    "reference": None,
    "dataset": {"path": "none", "revision": "none"},
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "bibtex_citation": "",
    "modalities": ["image", "text"],
}


def about(name: str, kind: str, category: str, main_score: str) -> TaskMetadata:
    return TaskMetadata(name=name, type=kind, category=category, main_score=main_score, **ABOUT)


class Retrieval(AbsTaskRetrieval):
    """Rows in memory: query i belongs to document i."""

    queries_are, documents_are = "text", "image"
    metadata = about("DrawnT2I", "Any2AnyRetrieval", "t2i", "ndcg_at_10")

    def load_data(self, *args, **kwargs) -> None:
        rows = {"text": CAPTIONS, "image": PICTURES}
        names = [str(number) for number in range(len(SCENES))]
        split = {
            "queries": Dataset.from_dict({"id": names, self.queries_are: rows[self.queries_are]}),
            "corpus": Dataset.from_dict({"id": names, self.documents_are: rows[self.documents_are]}),
            "relevant_docs": {name: {name: 1} for name in names},
            "top_ranked": None,
        }
        self.dataset, self.data_loaded = {"default": {"test": split}}, True


class ImageQueries(Retrieval):
    queries_are, documents_are = "image", "text"
    metadata = about("DrawnI2T", "Any2AnyRetrieval", "i2t", "ndcg_at_10")


class ZeroShot(AbsTaskZeroShotClassification):
    metadata = about("DrawnZeroShot", "ZeroShotClassification", "i2t", "accuracy")

    def load_data(self, *args, **kwargs) -> None:
        rows = Dataset.from_dict({"image": PICTURES, "label": labels()})
        self.dataset, self.data_loaded = DatasetDict({"test": rows}), True

    def get_candidate_labels(self) -> list[str]:
        return CLASSES


class Foils(AbsTaskImageTextPairClassification):
    images_column_names, texts_column_names = ["image"], ["true", "false"]
    metadata = about("DrawnFoils", "Compositionality", "i2t", "text_acc")

    def load_data(self, *args, **kwargs) -> None:
        true, false = zip(*FOILS, strict=True)
        rows = Dataset.from_dict({"image": PICTURES, "true": list(true), "false": list(false)})
        self.dataset, self.data_loaded = DatasetDict({"test": rows}), True


def labels() -> list[int]:
    return [CLASSES.index(f"a {color} {shape}") for scene in SCENES for color, shape in [scene.objects[0].pair]]


@pytest.fixture(scope="module")
def embedder_class():
    """The first Python block of the page, executed."""
    block = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)[0]
    names = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names["Embedder"]


@pytest.fixture(scope="module")
def embedder(embedder_class):
    return embedder_class("vladva-tiny", device="cpu")


@pytest.fixture(scope="module")
def features():
    """tag -> function from rows to unit vectors in float64, one row at a time."""

    def of(tag):
        model, preprocess = vladva_clip.create_model("vladva-tiny", tag)
        tokenizer = vladva_clip.get_tokenizer("vladva-tiny")

        @torch.no_grad()
        def vectors(rows) -> np.ndarray:
            pictures = isinstance(rows[0], Image.Image)
            one = [
                model.encode_image(preprocess(row)[None]) if pictures else model.encode_text(tokenizer([row]))
                for row in rows
            ]
            found = torch.cat(one).double().numpy()
            return found / np.linalg.norm(found, axis=1, keepdims=True)

        return vectors

    return {tag: of(tag) for tag in ("scenes", "base")}


def scores(embedder, task) -> dict[str, float]:
    """mteb's own scores of a task, by the call that the page shows."""
    found = mteb.evaluate(
        embedder, task, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 5, "show_progress_bar": False}
    )
    return found.task_results[0].scores["test"][0]


def recall_and_ndcg(queries: np.ndarray, documents: np.ndarray) -> tuple[float, float]:
    """R@1 and nDCG@10 where query i has the one right document i: 1 / log2(1 + rank), ranks from 1."""
    similar = queries @ documents.T
    ranks = 1 + (similar > np.diag(similar)[:, None]).sum(axis=1)
    return (ranks == 1).mean(), np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean()


@pytest.mark.parametrize("task", [Retrieval, ImageQueries])
def test_retrieval(task, embedder, features):
    rows = {"text": features["scenes"](CAPTIONS), "image": features["scenes"](PICTURES)}
    recall, ndcg = recall_and_ndcg(rows[task.queries_are], rows[task.documents_are])
    found = scores(embedder, task())
    assert found["recall_at_1"] == pytest.approx(recall, abs=1e-4)  # mteb rounds to five digits
    assert found["ndcg_at_10"] == pytest.approx(ndcg, abs=1e-4)
    assert 0.1 < recall < 0.9


def test_queries_and_documents_may_have_models_of_their_own(embedder_class, features, monkeypatch):
    """With a tag `retrieval`, it embeds the queries and nothing else. Here: the packaged model's two tags, renamed."""
    tags = registry.MODELS["vladva-tiny"].tags
    renamed = {"retrieval": tags["base"], "default": tags["scenes"]}
    monkeypatch.setitem(
        registry.MODELS, "vladva-tiny", dataclasses.replace(registry.MODELS["vladva-tiny"], tags=renamed)
    )
    embedder = embedder_class("vladva-tiny", device="cpu")
    queries, documents = features["base"](CAPTIONS), features["scenes"](PICTURES)
    found = scores(embedder, Retrieval())
    assert found["ndcg_at_10"] == pytest.approx(recall_and_ndcg(queries, documents)[1], abs=1e-4)
    assert embedder_class("vladva-tiny", "default", device="cpu").query_model is not embedder.query_model
    both = embedder_class("vladva-tiny", "default", device="cpu")
    assert both.query_model is both.model


def test_zero_shot_classification(embedder, features):
    similar = features["scenes"](PICTURES) @ features["scenes"](CLASSES).T
    expected = (similar.argmax(axis=1) == np.array(labels())).mean()
    assert scores(embedder, ZeroShot())["accuracy"] == pytest.approx(expected, abs=1e-4)
    assert 0 < expected < 1


def test_foils(embedder, features):
    pictures, (true, false) = features["scenes"](PICTURES), zip(*FOILS, strict=True)
    right = (pictures * features["scenes"](true)).sum(axis=1) > (pictures * features["scenes"](false)).sum(axis=1)
    assert scores(embedder, Foils())["text_acc"] == pytest.approx(right.mean(), abs=1e-4)


@pytest.mark.parametrize("row", [{"image": PICTURES[:2], "text": CAPTIONS[:2]}, {"audio": [0, 0]}])
def test_fused_and_other_rows_are_refused(row, embedder):
    with pytest.raises(ValueError, match=f"{sorted(row)[0]}.*expected images or texts"):
        embedder.encode([row], prompt_type=PromptType.query)


def test_pictures_of_any_mode(embedder, features):
    """mteb hands over an Image column's pictures as they are stored."""
    found = embedder.encode([{"image": [PICTURES[0].convert("RGBA"), PICTURES[1].convert("P")]}])
    np.testing.assert_allclose(found.numpy()[:1], features["scenes"](PICTURES[:1]), atol=1e-5)
    assert found.shape == (2, 256) and found.dtype == torch.float32


def test_results_are_kept_under_the_model_and_its_tag(embedder_class, tmp_path):
    """Another tag's results must not be taken for this one's."""
    cache = mteb.ResultCache(tmp_path)
    options = {"cache": cache, "co2_tracker": False, "encode_kwargs": {"batch_size": 8, "show_progress_bar": False}}
    found = [
        mteb.evaluate(embedder_class("vladva-tiny", tag, device="cpu"), Foils(), **options).task_results[0]
        for tag in ("scenes", "base")
    ]
    kept, other = (one.scores["test"][0]["text_acc"] for one in found)
    assert abs(kept - other) > 1e-3  # what is read back differs by rounding


def test_tasks_that_the_page_names_exist():
    names = re.search(r"get_tasks\((\[.*?\])\)", PAGE.read_text())[1]
    assert [task.metadata.name for task in mteb.get_tasks(eval(names))] == eval(names)
