"""Rows of one picture, from each kind of source to the loss: they are counted and not used as negatives."""

import base64
import csv
import io
import itertools
import json
import math

import pytest
import torch
from PIL import Image

import vladva_clip
from tests.support.samples import picture
from tests.support.training.loaders import open_loader
from tests.support.training.pairs import ListSource, encoded, noisy_pixels, to_pixels, write_tar
from vladva_training.config import LossSection
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.probe import probe_hard_negatives
from vladva_training.data.report import summary_of
from vladva_training.data.specs import open_source
from vladva_training.step.global_loss import Presence, contrastive_losses
from vladva_training.step.identity import picture_identity

SCALES = torch.tensor([4.605, 0.0])


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))


def loader(splitter, sources, batch_size, preprocess=to_pixels, **options):
    return open_loader(sources, splitter, preprocess, batch_size=batch_size, **options)


def jsonl(folder, rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_source(f"jsonl:{folder / 'rows.jsonl'}")


def caption(number, way):
    return f"picture {number} in way {way}"


def by_path(folder):
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    return jsonl(folder, [{"image_path": f"{n}.png", "caption": caption(n, way)} for n in range(3) for way in range(4)])


def under_other_paths(folder):
    """Another spelling of the path, a link, a copy, and another lossless format."""
    (folder / "more").mkdir()
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
        picture(number).save(folder / "more" / f"{number}.bmp")
        (folder / f"link{number}.png").symlink_to(folder / f"{number}.png")
    forms = ("more/../{}.png", "{}.png", "link{}.png", "more/{}.bmp")
    rows = [(form.format(number), caption(number, way)) for number in range(3) for way, form in enumerate(forms)]
    return jsonl(folder, [{"image_path": path, "caption": text} for path, text in rows])


def inside_a_csv(folder):
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_bytes", "caption"))
        data = [base64.b64encode(encoded(number)).decode() for number in range(3)]
        writer.writerows((data[number], caption(number, way)) for number in range(3) for way in range(4))
    return open_source(f"csv:{folder / 'rows.csv'}")


def in_shards(folder):
    """The keys restart in each shard, where they name other pictures."""
    for shard in range(2):
        files = {}
        for row in range(6):
            number = (row + shard) % 3
            files |= {f"{row}.jpg": encoded(number), f"{row}.txt": caption(number, 6 * shard + row).encode()}
        write_tar(folder / f"{shard}.tar", files)
    return open_source(f"wds:{folder}")


def saved_to_disk(folder):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = [(picture(number), caption(number, way)) for number in range(3) for way in range(4)]
    columns = {"image": [image for image, _ in rows], "caption": [text for _, text in rows]}
    features = Features({"image": ImageFeature(), "caption": Value("string")})
    Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "set"))
    return open_source(f"hf:{folder / 'set'}")


@pytest.mark.parametrize("source", [by_path, under_other_paths, inside_a_csv, in_shards, saved_to_disk])
def test_all_rows_of_a_picture_and_no_others_are_found(splitter, tmp_path, source):
    """Four rows for each of three pictures in one batch, with a random transform."""
    opened = source(tmp_path)
    batch = next(iter(loader(splitter, [opened], 12, noisy_pixels)))
    numbers = torch.tensor([int(text.split()[1]) for text in batch.short_texts])
    found = Presence.of(batch, 0, near=False)
    assert torch.equal(found.same_picture(), numbers[:, None] == numbers)
    assert torch.equal(found.same_short(), numbers[:, None] == numbers)


def test_a_perfect_encoder_has_no_loss_on_a_table_with_a_row_per_caption(splitter, tmp_path):
    batch = next(iter(loader(splitter, [by_path(tmp_path)], 12)))
    codes = torch.eye(12)[[int(text.split()[1]) for text in batch.short_texts]]
    features = torch.stack([codes, codes, torch.zeros_like(codes)], dim=1)
    presence = Presence.of(batch, 0, near=False)
    for contrastive in ("info_nce", "hardness"):
        section = LossSection(contrastive=contrastive)
        assert contrastive_losses(features, presence, SCALES, section)["contrastive"] < 1e-3
    unmasked = contrastive_losses(features, presence, SCALES, LossSection(false_negatives="none"))["contrastive"]
    assert unmasked == pytest.approx(2 * math.log(4), abs=1e-3)  # four candidates that all match, in both directions


def test_two_sources_of_the_same_pictures(splitter):
    scenes = [open_source("scenes:train:4"), open_source("scenes:train:4:0:places")]
    batch = next(iter(loader(splitter, scenes, 8, num_workers=1)))
    found = Presence.of(batch, 0, near=False).same_picture()
    assert found.sum() == 16  # each with itself and its twin


def test_a_record_that_is_in_a_batch_twice_at_the_end_of_an_epoch(splitter):
    batches = list(itertools.islice(loader(splitter, [ListSource(count=5)], 4), 5))
    assert any(len(set(batch.keys)) < 4 for batch in batches)
    for batch in batches:
        same = Presence.of(batch, 0, near=False).same_picture()
        assert same.tolist() == [[one == other for other in batch.keys] for one in batch.keys]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_report_counts_them(splitter, tmp_path, num_workers):
    rows = by_path(tmp_path)
    found = loader(splitter, [rows, ListSource(count=3)], 15, num_workers=num_workers, max_bad_share=0.0)
    next(iter(found))
    assert found.report.same_picture == 12 + 3 and not found.report.bad  # the list has the same pictures as the table
    assert summary_of([found.report.counts]).endswith("15 rows shared their picture with another row of their batch")


def test_hard_negatives_that_are_captions_are_counted_and_not_used(splitter, tmp_path):
    rows = []
    for number in range(4):
        picture(number).save(tmp_path / f"{number}.png")
        negatives = [f"picture {number}", f" picture  {number}"]
        rows.append({"image_path": f"{number}.png", "caption": f"picture {number}", "hard_negatives": negatives})
    source = jsonl(tmp_path, rows)
    found = loader(splitter, [source], 4, num_hard_negatives=2)
    batch = next(iter(found))
    assert batch.hard_negatives == ((),) * 4
    assert found.report.unused == {"hard negative equals a caption": 8}
    assert probe_hard_negatives(source, splitter)["with hard negatives"] == 0


def test_a_hard_negative_that_is_a_caption_of_another_row_of_the_picture_is_masked(splitter, tmp_path):
    picture(0).save(tmp_path / "0.png")
    picture(1).save(tmp_path / "1.png")
    captions = [("0.png", "a red dog", "a cat"), ("0.png", "a cat", "a blue dog"), ("1.png", "a blue dog", "a red dog")]
    rows = [dict(zip(("image_path", "caption", "hard_negatives"), row, strict=True)) for row in captions]
    batch = next(iter(loader(splitter, [jsonl(tmp_path, rows)], 3, num_hard_negatives=1)))
    found = Presence.of(batch, 1, near=False).true_hard_negatives()[:, 0].tolist()
    assert found == [text == "a red dog" for text in batch.short_texts]


def test_the_identity_is_that_of_mode_size_and_every_pixel():
    large = Image.new("RGB", (300, 2000), "red")
    changed = large.copy()
    changed.putpixel((299, 1999), (255, 0, 1))
    pictures = [large, changed, large.resize((2000, 300)), large.convert("L").convert("RGB"), large.convert("L")]
    assert len({picture_identity(image) for image in pictures}) == len(pictures)
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    assert picture_identity(Image.open(buffer)) == picture_identity(large)
    assert picture_identity(Image.new("RGB", (2**20, 1))) != picture_identity(Image.new("RGB", (1, 2**20)))
