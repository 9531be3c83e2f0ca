"""Goes through a source shard by shard and has captioners write the missing captions."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from vladva_clip.records.records import BadRecord, Record, Source, one_record
from vladva_training.captioning.captioners import Captioner
from vladva_training.captioning.drafts import Draft, ask, fault, without_thin
from vladva_training.captioning.settings import IMAGE_FORMATS, CaptionSettings
from vladva_training.captioning.several import write_several
from vladva_training.captioning.shards import Problem, Shard, encode_image, new_shard
from vladva_training.data.captions import CaptionSplitter


def _attempt(source: Source, index: int) -> tuple[int, Record | Problem]:
    """Read a record, or return its problem: a bad record must not stop the reading."""
    try:
        with one_record(index):
            return index, source[index]
    except BadRecord as error:
        return index, Problem(index, error.key, error.reason, str(error.detail))


def _read_ahead(source: Source, indexes: Sequence[int], num_workers: int, depth: int) -> Iterator[tuple]:
    """Yield attempts in order; threads read up to `depth` of them ahead.

    Decoding releases Python's lock, and threads neither copy images between processes nor outlive a killed run.
    """
    pool = ThreadPoolExecutor(max(1, num_workers))
    try:
        waiting: deque[Future] = deque()
        for index in indexes:
            waiting.append(pool.submit(_attempt, source, index))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def fill_shards(
    source: Source,
    shards: Mapping[int, str],
    output: Path,
    settings: CaptionSettings,
    splitter: CaptionSplitter,
    captioners: Mapping[str, Captioner],
    num_workers: int = 0,
) -> None:
    """Write shards, each one completely or not at all. A shard depends only on the source and the settings.

    Args:
        source: the records.
        shards: number -> name of the shards to write.
        output: the directory to write to.
        settings: determine the contents of the shards.
        splitter: decides which captions are short and which are long.
        captioners: kind of caption -> the model that writes missing ones.
        num_workers: threads that read and decode images ahead; with 0, nothing is read ahead.
    """
    indexes = [index for shard in shards for index in settings.indexes(shard)]
    attempts = _read_ahead(source, indexes, num_workers, 2 * settings.batch_size if num_workers else 0)
    with closing(attempts), tqdm(total=len(indexes), unit="image", dynamic_ncols=True) as progress:
        for number, name in shards.items():
            with new_shard(output, name) as shard:
                for chunk in _chunks(attempts, len(settings.indexes(number)), settings.batch_size):
                    _write_chunk(shard, chunk, settings, splitter, captioners)
                    progress.update(len(chunk))


def _chunks(attempts: Iterator, count: int, size: int) -> Iterator[list]:
    """Yield the next `count` attempts in lists of `size`, the last one shorter, so that no batch crosses a shard."""
    for start in range(0, count, size):
        yield list(islice(attempts, min(size, count - start)))


def _write_chunk(
    shard: Shard,
    chunk: list[tuple[int, Record | Problem]],
    settings: CaptionSettings,
    splitter: CaptionSplitter,
    captioners: Mapping[str, Captioner],
) -> None:
    shard.problems += [attempt for _, attempt in chunk if isinstance(attempt, Problem)]
    drafts = [Draft.of(index, attempt) for index, attempt in chunk if isinstance(attempt, Record)]
    for kind, captioner in captioners.items():
        several = kind == "short" and settings.short_count > 1
        write = write_several if several else partial(_write_one, kind)
        shard.filled[kind] += write(drafts, captioner, settings, splitter)
    for draft in drafts:
        shard.problems += draft.problems
        _add(shard, draft, settings)


def _write_one(
    kind: str, drafts: list[Draft], captioner: Captioner, settings: CaptionSettings, splitter: CaptionSplitter
) -> int:
    """Write a caption for each image without one of this kind; returns the number of captions written."""
    lacking = without_thin([draft for draft in drafts if not getattr(splitter.split(draft.record.captions), kind)])
    written = ask(captioner.name, lambda some: captioner.caption([draft.record.image for draft in some]), lacking)
    return sum(
        _accept(draft, text, kind, captioner.name, splitter) for draft, text in zip(lacking, written, strict=True)
    )


def _accept(draft: Draft, text: str | ValueError, kind: str, author: str, splitter: CaptionSplitter) -> bool:
    """Keep a caption of the requested kind and return True, or note a problem and return False."""
    if isinstance(text, ValueError):
        draft.add_refusal(author, text)
    elif found := fault(text, kind, author, splitter):
        draft.add_problem(*found)
    else:
        draft.add(text, author)
        return True
    return False


def _add(shard: Shard, draft: Draft, settings: CaptionSettings) -> None:
    if not draft.captions:
        return  # its problems say why there are none
    description = {
        "captions": draft.captions,
        "caption_authors": draft.authors,
        "hard_negatives": list(draft.record.hard_negatives),
        "source": settings.source,
        "source_key": draft.record.key,
        "image": IMAGE_FORMATS[settings.image_format],
    }
    image = encode_image(draft.record.image, settings.image_format)
    # numbered, because the source's own keys may contain dots, which end a key in a tar
    shard.add(f"{draft.index:09d}", image, settings.image_format, description)
