"""SugarCrepe's and SugarCrepe++'s real annotations, with pictures drawn for their file names: the official formulas.

Those are written here anew, pair by pair, from the official evaluations (RAIVNLab/sugar-crepe, main_eval.py;
Sri-Harsha/scpp, VLMs/test_Variants_CLIP.py): a strict comparison, so that a tie is wrong.
"""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from tests.support import samples
from tests.support.models import tiny_clips
from vladva_benchmarks.suites import catalog, layouts, runner
from vladva_benchmarks.suites.clip_benchmark_data import KINDS
from vladva_benchmarks.suites.runner import Settings
from vladva_benchmarks.suites.sugarcrepe_pp import KINDS as TRIPLE_KINDS

FOLDERS = {"sugarcrepe": KINDS, "sugarcrepe_pp": TRIPLE_KINDS}
DATA_SETS = {"sugarcrepe": "sugar_crepe", "sugarcrepe_pp": "sugarcrepe_pp"}


@pytest.fixture(scope="module")
def clip_name(tmp_path_factory) -> str:
    return tiny_clips.write_directory(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def loaded(clip_name):
    model, _, preprocess = open_clip.create_model_and_transforms(clip_name)
    return model.eval(), preprocess, open_clip.get_tokenizer(clip_name)


def rows_of(path: Path) -> list[dict[str, str]]:
    data = json.loads(path.read_text())
    return list(data.values()) if isinstance(data, dict) else data


def furnish(root: Path, shared_data: Path, count: int | None = None) -> None:
    """The real files, or the first pairs of each in the same form, and a picture for every name in them."""
    for suite, kinds in FOLDERS.items():
        (root / suite / "val2017").mkdir(parents=True)
        for kind in kinds:
            data = json.loads((shared_data / "data" / suite / f"{kind}.json").read_text())
            data = dict(list(data.items())[:count]) if isinstance(data, dict) else data[:count]
            (root / suite / f"{kind}.json").write_text(json.dumps(data))
            for row in rows_of(root / suite / f"{kind}.json"):
                path = root / suite / "val2017" / row["filename"]
                if not path.exists():
                    samples.picture(int(path.stem), (40, 32)).save(path)


def scores(settings: Settings) -> dict[str, dict[str, float]]:
    results = [json.loads(path.read_text()) for path in runner.run(settings)]
    return {result["dataset"]: result["metrics"] for result in results}


@torch.no_grad()
def officially(loaded, place: Path, kind: str, at_a_time: int) -> dict[str, float]:
    """The official formulas over a file; with at_a_time=1 exactly as they are run, one pair after the other."""
    model, preprocess, tokenizer = loaded
    rows, right = rows_of(place / f"{kind}.json"), {"acc": 0, "itt": 0, "tot": 0}
    for start in range(0, len(rows), at_a_time):
        chunk = rows[start : start + at_a_time]
        pixels = torch.stack([preprocess(Image.open(place / "val2017" / row["filename"])) for row in chunk])
        image = model.encode_image(pixels, normalize=True)
        texts = {
            side: model.encode_text(tokenizer([row[side] for row in chunk]), normalize=True)
            for side in ("caption", "caption2", "negative_caption")
            if side in chunk[0]
        }
        to_image = {side: cosine_similarity(image, text, eps=1e-6) for side, text in texts.items()}
        right["acc"] += int((to_image["caption"] > to_image["negative_caption"]).sum())
        if "caption2" in texts:
            both = torch.minimum(to_image["caption"], to_image["caption2"]) > to_image["negative_caption"]
            right["itt"] += int(both.sum())
            first, second, negative = texts.values()
            true = cosine_similarity(first, second, eps=1e-6)
            false = [cosine_similarity(one, negative, eps=1e-6) for one in (first, second)]
            right["tot"] += int(((true > false[0]) & (true > false[1])).sum())
    wanted = ("itt", "tot") if "caption2" in rows[0] else ("acc",)
    return {name: right[name] / len(rows) for name in wanted}


def test_the_first_pairs_one_at_a_time(shared_data, clip_name, loaded, tmp_path):
    furnish(tmp_path, shared_data, count=12)
    options = {"output": tmp_path / "results", "num_workers": 0, "subset": True}
    found = scores(Settings(list(FOLDERS), clip_name, tmp_path, **options))
    expected = {
        f"{DATA_SETS[suite]}/{kind}": officially(loaded, tmp_path / suite, kind, at_a_time=1)
        for suite, kinds in FOLDERS.items()
        for kind in kinds
    }
    assert {name: pytest.approx(one) for name, one in expected.items()} == found
    assert len({value for one in found.values() for value in one.values()}) > 4  # or nothing was told apart


def test_the_counts_of_the_real_files_are_the_published_ones(shared_data, tmp_path):
    """7,511 pairs; the pictures are made of nothing, as none is opened."""
    for suite, kinds in FOLDERS.items():
        (tmp_path / suite / "val2017").mkdir(parents=True)
        for kind in kinds:
            source = shared_data / "data" / suite / f"{kind}.json"
            (tmp_path / suite / source.name).write_text(source.read_text())
            for row in rows_of(source):
                (tmp_path / suite / "val2017" / row["filename"]).touch()
        tasks = list(catalog.SUITES[suite].read(tmp_path))
        layouts.check_counts(tasks, catalog.SUITES[suite].counts)
        total = sum(len(task.pictures) for task in tasks)
        assert total == (7511 if suite == "sugarcrepe" else 4757)


def test_captions_cut_to_the_same_tokens_tie_and_are_wrong(clip_name, loaded, tmp_path):
    """Beyond its 32 tokens the encoder sees nothing of the difference."""
    place = tmp_path / "sugarcrepe"
    long = " ".join(f"thing {number}" for number in range(20))
    for kind in KINDS:
        row = {"filename": "000000000001.jpg", "caption": f"{long} red", "negative_caption": f"{long} blue"}
        (place / "val2017").mkdir(parents=True, exist_ok=True)
        samples.picture(1).save(place / "val2017" / row["filename"])
        (place / f"{kind}.json").write_text(json.dumps({"0": row}))
    options = {"output": tmp_path / "results", "num_workers": 0, "subset": True}
    found = scores(Settings(["sugarcrepe"], clip_name, tmp_path, **options))
    assert set(map(str, found.values())) == {"{'acc': 0.0}"}
    assert officially(loaded, place, "swap_obj", at_a_time=1) == {"acc": 0.0}


@pytest.mark.slow
def test_all_pairs(shared_data, clip_name, loaded, tmp_path):
    """The whole files, with their published counts required."""
    furnish(tmp_path, shared_data)
    found = scores(Settings(list(FOLDERS), clip_name, tmp_path, output=tmp_path / "results", num_workers=0))
    for suite, kinds in FOLDERS.items():
        for kind in kinds:
            expected = officially(loaded, tmp_path / suite, kind, at_a_time=256)
            assert found[f"{DATA_SETS[suite]}/{kind}"] == pytest.approx(expected), (suite, kind)
