"""Goes through a source shard by shard and has captioners write the missing captions."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from vladva_clip.interface.addresses import without_addresses
from vladva_training.captioning.captioners import Captioner
from vladva_training.captioning.settings import IMAGE_FORMATS, CaptionSettings
from vladva_training.captioning.shards import Problem, Shard, encode_image, new_shard
from vladva_training.data.captions import CaptionSplitter
from vladva_training.data.fields import texts
from vladva_training.data.records import BadRecord, Record, Source, one_record

MAX_ASPECT_RATIO = 200  # as in Qwen2-VL's processor; CLIP's enlarges the whole picture before it crops


@dataclass
class Draft:
    """A record on its way into a shard. `authors` names the model of each caption, None for captions of the source."""

    index: int
    record: Record
    captions: list[str]
    authors: list[str | None]
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, index: int, record: Record) -> "Draft":
        """Return a draft with the record's own captions, without empty ones."""
        captions = [caption for caption in record.captions if caption.strip()]
        return cls(index, record, captions, [None] * len(captions))

    def add_problem(self, reason: str, detail: str) -> None:
        """Note something that could not be done for this record."""
        self.problems.append(Problem(self.index, self.record.key, reason, without_addresses(detail)))


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
        lacking = [draft for draft in drafts if not getattr(splitter.split(draft.record.captions), kind)]
        for draft, text in zip(lacking, _captions_unless_thin(captioner, lacking), strict=True):
            shard.filled[kind] += text is not None and _accept(draft, text, kind, captioner.name, splitter)
    for draft in drafts:
        shard.problems += draft.problems
        _add(shard, draft, settings)


def _captions_unless_thin(captioner: Captioner, drafts: list[Draft]) -> list[str | None]:
    """As `_captions`, but give None and note a problem for images that a processor would enlarge to gigabytes."""
    thin = [max(draft.record.image.size) > MAX_ASPECT_RATIO * min(draft.record.image.size) for draft in drafts]
    written = iter(_captions(captioner, [draft for draft, is_thin in zip(drafts, thin, strict=True) if not is_thin]))
    for draft in (draft for draft, is_thin in zip(drafts, thin, strict=True) if is_thin):
        width, height = draft.record.image.size
        limit = f"expected no side longer than {MAX_ASPECT_RATIO} times the other"
        draft.add_problem("image too thin", f"{width} x {height}, {limit}")
    return [None if is_thin else next(written) for is_thin in thin]


def _captions(captioner: Captioner, drafts: list[Draft]) -> list[str | None]:
    """Return one text per draft, or None with a problem noted for images that the model's processor refuses."""
    if not drafts:
        return []
    try:
        return captioner.caption([draft.record.image for draft in drafts])
    except ValueError as error:
        if len(drafts) == 1:
            drafts[0].add_problem("image refused", f"{captioner.name}: {error}")
            return [None]
    written = [text for draft in drafts for text in _captions(captioner, [draft])]
    if not any(text is not None for text in written):
        raise ValueError(f"{captioner.name} refused every image of a batch: {drafts[0].problems[-1].detail}")
    return written


def _accept(draft: Draft, text: str, kind: str, author: str, splitter: CaptionSplitter) -> bool:
    """Keep a caption of the requested kind and return True, or note a problem and return False."""
    if not text:
        draft.add_problem("empty caption written", f"{author} wrote no {kind} caption")
        return False
    if not getattr(splitter.split((text,)), kind):
        draft.add_problem("caption of another length written", f"{author} wrote {text!r:.200}, expected a {kind} one")
        return False
    if not _is_read_back(text):
        draft.add_problem("unusable caption written", f"{author} wrote {text!r:.200}, which training refuses")
        return False
    draft.captions.append(text)
    draft.authors.append(author)
    return True


def _is_read_back(text: str) -> bool:
    """Whether training reads a text as it is, not as a missing value, a number or a list (see `fields.texts`)."""
    try:
        return texts({"captions": [text]}, ("captions",), "") == (text,)
    except BadRecord:
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
