import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import threading

import pytest
import torch

import vladva_clip
from tests.support.training.loaders import open_loader
from tests.support.training.pairs import (
    LONG,
    SHORT,
    ListSource,
    as_examples,
    encoded,
    noisy_pixels,
    to_pixels,
    write_tar,
)
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.loader import BatchCollate
from vladva_training.data.order import Order
from vladva_training.data.probe import probe, probe_source
from vladva_training.data.specs import open_source

EOS = 1


@pytest.fixture(scope="module")
def splitter():
    return CaptionSplitter(vladva_clip.get_tokenizer("vladva-tiny"))


def loader(splitter, sources, batch_size=6, preprocess=to_pixels, weights=None, **options):
    options = {"collate": as_examples, "seed": 5, "max_bad_share": 0.9, **options}
    return open_loader(sources, splitter, preprocess, batch_size=batch_size, weights=weights, **options)


def mixture():
    scenes = open_source("scenes:train:16")
    return [scenes, ListSource("good", 11), ListSource("poor", 13, {2: "corrupt image", 7: "empty caption"})]


def fingerprints(batches):
    """Everything in a batch, in a form that can be compared."""
    return [[fingerprint(example) for example in batch] for batch in batches]


def fingerprint(example):
    captions = (example.short, example.other_short, example.long, *example.hard_negatives)
    ids = tuple(None if caption is None else tuple(caption.tolist()) for caption in captions)
    return example.key, round(example.pixels.double().sum().item(), 6), ids, example.short_text


def take(loader, count):
    return list(itertools.islice(loader, count))


OPTIONS = {"num_hard_negatives": 2, "with_other_short": True, "preprocess": noisy_pixels}


@pytest.fixture(scope="module")
def whole_run(splitter):
    """13 batches of 8, two and a half epochs, read by one process."""
    return fingerprints(take(loader(splitter, mixture(), 8, **OPTIONS), 13))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_run_is_the_same_for_any_number_of_workers_and_processes(splitter, whole_run, world_size, num_workers):
    count = 13 if num_workers == 0 else 6
    ranks = [
        loader(splitter, mixture(), 8 // world_size, rank=r, world_size=world_size, num_workers=num_workers, **OPTIONS)
        for r in range(world_size)
    ]
    shares = [fingerprints(take(rank, count)) for rank in ranks]
    assert [list(itertools.chain(*rows)) for rows in zip(*shares, strict=True)] == whole_run[:count]


@pytest.mark.parametrize("start", [1, 4, 5, 9])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_starting_at_a_batch_skips_those_before_it(splitter, whole_run, start, num_workers):
    resumed = loader(splitter, mixture(), 8, next_batch=start, num_workers=num_workers, **OPTIONS)
    assert fingerprints(take(resumed, 3)) == whole_run[start : start + 3]
    assert resumed.next_batch == start + 3


def test_a_second_iteration_continues(splitter, whole_run):
    found = loader(splitter, mixture(), 8, num_workers=1, **OPTIONS)
    assert fingerprints(take(found, 3) + take(found, 2)) == whole_run[:5]


@pytest.mark.slow
def test_spawned_workers_read_the_same(splitter, tmp_path):
    files = {}
    for number in range(8):
        files |= {f"{number}.jpg": encoded(number), f"{number}.txt": f"picture {number}".encode()}
    source = open_source(f"wds:{write_tar(tmp_path / 'a.tar', files)}")
    here = fingerprints(take(loader(splitter, [source], 4), 3))
    spawning = loader(splitter, [source], 4, num_workers=1, start_method="spawn")
    assert fingerprints(take(spawning, 3)) == here


def test_batch_by_default(splitter):
    batch = next(iter(loader(splitter, [ListSource()], 3, collate=BatchCollate(EOS), num_workers=1)))
    assert batch.images.shape == (3, 3, 8, 8) and len(batch) == 3
    assert batch.short_texts == (SHORT,) * 3 and batch.long[0][-1] == EOS


def test_every_record_is_seen_once_per_epoch_and_batches_keep_their_size(splitter):
    found = loader(splitter, [ListSource(count=20)], 6)
    batches = take(found, 10)
    assert [len(batch) for batch in batches] == [6] * 10 and found.epoch_size == 20
    keys = [example.key for batch in batches for example in batch]
    for epoch in range(3):
        assert sorted(keys[epoch * 20 : epoch * 20 + 20]) == sorted(f"list{n}" for n in range(20))
    assert (found.steps(1), found.steps(3), found.steps(0.5)) == (4, 10, 2)


def test_families_share_a_batch(splitter):
    found = loader(splitter, [open_source("scenes:train:400")], 8)

    def families():
        return {int(example.key.split("/")[1]) // 4 for example in next(iter(found))}

    assert len(families()) == 2
    found.order = Order([400], None, [1], 5)  # without groups
    assert len(families()) > 4


def test_weights_determine_the_mixture(splitter):
    sources = [ListSource("a", 30), ListSource("b", 30)]
    batches = take(loader(splitter, sources, 6, weights=[4, 1]), 10)
    keys = [example.key[0] for batch in batches for example in batch]
    assert (keys.count("a"), keys.count("b")) == (48, 12)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_records_are_replaced_counted_and_listed(splitter, tmp_path, num_workers):
    reasons = {1: "corrupt image", 2: "corrupt image", 5: "not utf-8"}
    sources = [ListSource("a", 9), ListSource("b", 9, reasons)]
    found = loader(splitter, sources, 6, output_dir=tmp_path, num_workers=num_workers)
    batches = take(found, 6)  # two epochs
    keys = [example.key for batch in batches for example in batch]
    assert [len(batch) for batch in batches] == [6] * 6
    assert sum(key[0] == "a" for key in keys) == 18  # replacements come from the same source
    assert not {"b1", "b2", "b5"} & set(keys)
    assert found.report.bad["corrupt image"] >= 4 and found.report.bad["not utf-8"] >= 2
    assert found.report.records == 36 + found.report.bad.total()
    entries = [json.loads(line) for line in (tmp_path / "bad_records.jsonl").read_text().splitlines()]
    assert sorted((e["source"], e["key"], e["reason"]) for e in entries) == [
        ("b", "b1", "corrupt image"),
        ("b", "b2", "corrupt image"),
        ("b", "b5", "not utf-8"),
    ]


def test_every_process_lists_its_own(splitter, tmp_path):
    sources = [ListSource(count=4, bad={0: "corrupt image"})]
    take(loader(splitter, sources, 2, rank=1, world_size=2, output_dir=tmp_path), 9)
    assert [path.name for path in tmp_path.iterdir()] == ["bad_records-rank1.jsonl"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_source_where_everything_is_bad_stops_the_run(splitter, tmp_path, num_workers):
    sources = [ListSource("good"), ListSource("broken", 20, dict.fromkeys(range(20), "corrupt image"))]
    with pytest.raises(ValueError, match="100 records in a row of broken are bad") as caught:
        take(loader(splitter, sources, 6, max_bad_share=1.0, output_dir=tmp_path, num_workers=num_workers), 9)
    assert "broken broken" in str(caught.value) and "Traceback" not in str(caught.value)
    assert (tmp_path / "bad_records.jsonl").stat().st_size


def test_more_bad_records_than_allowed_stop_the_run(splitter):
    source = ListSource(count=100, bad=dict.fromkeys(range(0, 100, 5), "corrupt image"))
    found = loader(splitter, [source], 50, max_bad_share=0.05)
    with pytest.raises(ValueError, match="more than the share 0.05 that is allowed .corrupt image"):
        take(found, 100)
    assert found.report.records >= 500


def test_captions_that_are_too_long_are_counted(splitter):
    found = loader(splitter, [ListSource(texts=(SHORT, LONG, LONG * 20))], 5)
    take(found, 2)
    assert found.report.unused == {"caption too long": 10}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((LONG,), r"none of the 20 captions looked at in list is short \(fewer than 30"),
        ((LONG * 20, LONG * 30), r"no usable caption.*list \(captions too long 20\).*long_max_tokens"),
        (("", " "), r"no usable caption.*empty caption 20"),
        ((), r"no usable caption.*missing caption 20"),
    ],
)
def test_sources_without_the_captions_needed_are_refused_before_the_run(splitter, texts, message):
    with pytest.raises(ValueError, match=message):
        loader(splitter, [ListSource(texts=texts)])


@pytest.mark.parametrize("count", [1, 255, 256, 300, 600])
def test_at_most_256_records_of_a_source_are_examined_before_the_run(splitter, count):
    found = probe_source(ListSource(count=count, texts=(SHORT,)), splitter)
    assert min(count, 128) <= found["short"] <= 256


def test_hard_negatives_and_further_short_captions_are_counted_before_the_run(splitter):
    bad = {0: "corrupt image"}
    sources = [open_source("scenes:train:400"), ListSource(count=300, bad=bad), ListSource(texts=(SHORT, f" {SHORT}"))]
    found = probe(sources, splitter, hard_negatives=True)
    assert [counts["read"] for counts in found] == [16, 15, 10]  # each 25th, 19th, 2nd
    assert [counts["with hard negatives"] for counts in found] == [16, 0, 0]
    assert [counts["several short"] for counts in found] == [200, 0, 0]
    assert not any(counts["read"] for counts in probe(sources, splitter))


def test_one_of_several_sources_may_have_only_long_captions(splitter):
    only_long, both = ListSource(texts=(LONG,)), ListSource("both")
    examples = itertools.chain(*take(loader(splitter, [only_long, both]), 5))
    assert {example.short is None for example in examples} == {True, False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2, expected less than the world size 2"),
        ({"batch_size": 1, "world_size": 0}, "world_size is 0"),
        ({"batch_size": 1, "rank": -1}, "rank is -1"),
        ({"batch_size": 21}, "the batch of 21 is larger than the 20 records of an epoch"),
        ({"batch_size": 11, "world_size": 2}, "the batch of 22 is larger"),
        ({"weights": [1.0, 2.0]}, "expected 1 positive numbers"),
    ],
)
def test_invalid_numbers_are_refused(splitter, options, message):
    with pytest.raises(ValueError, match=message):
        loader(splitter, [ListSource(count=20)], **options)


def test_no_source_is_refused(splitter):
    with pytest.raises(ValueError, match="at least one source"):
        loader(splitter, [])


def test_a_batch_of_one(splitter):
    assert [len(batch) for batch in take(loader(splitter, [ListSource(count=3)], 1), 5)] == [1] * 5


def _thread_at_fork() -> None:
    """Start a thread in each forked process before our own code, as some libraries do."""
    if AT_FORK["thread"]:
        threading.Thread(target=threading.Event().wait, daemon=True).start()


AT_FORK = {"thread": False}
os.register_at_fork(after_in_child=_thread_at_fork)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers cannot tell who signals them here")
@pytest.mark.parametrize("thread", [False, True])
def test_workers_outlive_a_signal_to_the_whole_job_and_end_with_the_loader(splitter, whole_run, monkeypatch, thread):
    monkeypatch.setitem(AT_FORK, "thread", thread)
    batches = iter(loader(splitter, mixture(), 8, num_workers=2, **OPTIONS))
    found = [next(batches)]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # this process receives it
    workers = multiprocessing.active_children()
    for worker in workers:
        for name in ("-TERM", "-INT"):
            subprocess.run(["kill", name, str(worker.pid)], check=True)
    found += itertools.islice(batches, 7)
    assert fingerprints(found) == whole_run[:8] and all(worker.is_alive() for worker in workers)
    workers[0].terminate()  # as multiprocessing does when the main process ends
    workers[0].join(20)
    assert workers[0].exitcode == 0


def test_the_run_s_generator_is_left_alone(splitter):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    take(loader(splitter, [ListSource()], preprocess=noisy_pixels), 2)
    take(loader(splitter, [ListSource()], num_workers=1), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_real_photographs_from_a_tar_to_a_batch(splitter, shared_data, tmp_path):
    paths = sorted((shared_data / "data" / "photos").glob("*.JPEG"))[:12]
    files = {}
    for number, path in enumerate(paths):
        files |= {f"{number}.jpg": path.read_bytes(), f"{number}.txt": path.stem.partition("_")[2].encode()}
    files["3.jpg"] = files["3.jpg"][: len(files["3.jpg"]) // 2]
    source = open_source(f"wds:{write_tar(tmp_path / 'a.tar', files)}")
    preprocess = vladva_clip.create_model_and_transforms("vladva-tiny", "base")[2]
    found = loader(splitter, [source], 4, preprocess, collate=BatchCollate(EOS), num_workers=1)
    batches = take(found, 3)
    assert all(batch.images.shape == (4, 3, 64, 64) and batch.images.isfinite().all() for batch in batches)
    texts = {text for batch in batches for text in batch.short_texts}
    assert len(texts) == 11 and paths[3].stem.partition("_")[2] not in texts
    assert found.report.bad == {"corrupt image": 1}
