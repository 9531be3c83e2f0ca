"""transformers' tokenizer and processor of a base, built from copies that hold what is admitted of its files.

The copies stand in a directory of their own while transformers reads: it sees no other file of the base.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import AddedToken
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

from vladva_clip.encoder.admission import tokenizer_files as files
from vladva_clip.encoder.admission.base_config import (
    CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    family_in,
    processor_config,
    processor_settings,
    read_base_config,
)
from vladva_clip.encoder.admission.chat_files import chat_files
from vladva_clip.encoder.backbones import FAMILIES, backbone_class
from vladva_clip.encoder.backbones.base import Backbone
from vladva_clip.storage import disk
from vladva_clip.storage.allowed_files import refuse_links_out

Loaded = TypeVar("Loaded")
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_STATED_IDS = (
    *("bos_token_id", "eos_token_id", "image_token_index"),
    *(f"{name}_token_id" for name in ("image", "video", "vision_start", "vision_end")),
)
_NAMES = (
    *(files.TOKENIZER, files.SENTENCEPIECE, files.VOCABULARY, files.MERGES, files.SETTINGS, files.SPECIALS),
    *(files.ADDED, PREPROCESSOR, PROCESSOR),
)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer, in which the family's control tokens are special whatever the files say.

    Raises:
        ValueError: no tokenizer, files that transformers can't use, or a tokenizer of another family.
    """
    with checked_copies(directory) as copies:
        tokenizer = attempt(lambda: AutoTokenizer.from_pretrained(copies, **_LOCAL), directory, "tokenizer")
    settle(tokenizer, directory)
    return tokenizer


def load_processor(directory: Path) -> Any:
    """Load a base's processor (transformers' own), with its chat templates.

    Raises:
        ValueError: as `load_tokenizer`; an image processor that isn't the family's.
    """
    with checked_copies(directory, with_processor=True) as copies:
        processor = attempt(lambda: AutoProcessor.from_pretrained(copies, **_LOCAL), directory, "processor")
    settle(processor.tokenizer, directory)
    return processor


@contextlib.contextmanager
def checked_copies(directory: Path, with_processor: bool = False) -> Iterator[Path]:
    """Give a directory with copies of a base's small files that hold only what is admitted of them.

    Raises:
        ValueError: no tokenizer, or values that aren't admitted.
        OSError: no room in the temporary folder.
    """
    directory = Path(directory)
    refuse_links_out(directory, (*_NAMES, CONFIG))
    contents = _tokenizer_contents(directory) | chat_files(directory)
    if with_processor:
        settings = processor_settings(directory)
        contents |= {PREPROCESSOR: processor_config(directory), **({PROCESSOR: settings} if settings else {})}
    with tempfile.TemporaryDirectory(prefix="vladva-base-") as place:
        with disk.writing(place):
            for name, content in contents.items():
                path = Path(place, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        yield Path(place)


def attempt(load: Callable[[], Loaded], directory: Path, what: str, ours: bool = False) -> Loaded:
    """Call a loader of transformers'.

    Args:
        load: the loader.
        directory: of the base, for the error.
        what: it makes, for the error.
        ours: the loader is code of ours, whose ValueErrors say enough.

    Raises:
        ValueError: whatever it raises. The library `tokenizers` raises bare Exceptions, and panics, for damaged files.
    """
    try:
        return load()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if ours and isinstance(error, ValueError):
            raise
        found = ", ".join(name for name in _NAMES if (directory / name).is_file())
        raise ValueError(
            f"transformers can't build the {what} of {directory} from {found} "
            f"({type(error).__name__}: {error!s:.200}); get the files again"
        ) from error


def settle(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Make the family's control tokens special, and its end of text the tokenizer's; in place.

    Raises:
        ValueError: a tokenizer that lacks one of them or gives two the same id.
    """
    tokenizer.name_or_path = str(directory)
    known, backend = tokenizer.get_vocab(), tokenizer.backend_tokenizer
    family = _family_of_vocabulary(directory, known)
    for name, expected in (("eos_token", family.eos_token), ("bos_token", family.bos_token)):
        found = getattr(tokenizer, name)
        if expected is not None and found != expected:
            raise ValueError(
                f"{directory / files.SETTINGS}: {name} is {str(found)!r:.80}, expected {expected!r}, as all of the "
                f"family {family.family}"
            )
    if len({known[name] for name in family.control_tokens}) < len(family.control_tokens):
        raise ValueError(f"the tokenizer of {directory} gives one id to several of {', '.join(family.control_tokens)}")
    tokens = backend.get_added_tokens_decoder()
    plain = [name for name in family.control_tokens if not getattr(tokens.get(known[name]), "special", False)]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in plain])
    rare = "a \U0001f9ff"  # the token for unknown words is looked up when the first one comes
    attempt(lambda: tokenizer(rare, add_special_tokens=False, split_special_tokens=True), directory, "tokenizer")


def control_ids(tokenizer: PreTrainedTokenizerBase, directory: Path) -> frozenset[int]:
    """Return the ids that no caption may have: of the family's control tokens, and those that config.json states."""
    known = tokenizer.get_vocab()
    ids = {known[name] for name in _family_of_vocabulary(directory, known).control_tokens}
    if (directory / CONFIG).is_file():
        config = read_base_config(directory)
        for part in (config, config.get("text_config", {})):
            for value in (part.get(name) for name in _STATED_IDS):
                ids |= set(value) if isinstance(value, list) else {value}
    return frozenset(ids - {None})


def _family_of_vocabulary(directory: Path, known: dict[str, int]) -> type[Backbone]:
    families = _families(directory)
    missing = [[name for name in family.control_tokens if name not in known] for family in families]
    for family, names in zip(families, missing, strict=True):
        if not names:
            return family
    raise ValueError(
        f"the tokenizer of {directory} lacks {', '.join(missing[0])}, by which {families[0].family} marks where things "
        "begin and end; is it this family's tokenizer? Get the files again"
    )


def _tokenizer_contents(directory: Path) -> dict[str, Any]:
    has_config = (directory / CONFIG).is_file()  # not so where a tokenizer was saved alone
    contents = {CONFIG: read_base_config(directory)} if has_config else {}
    contents |= _vocabulary_contents(directory)
    if (directory / files.SETTINGS).is_file():
        contents[files.SETTINGS] = files.settings(directory, _families(directory))
    for name, read in ((files.SPECIALS, files.specials), (files.ADDED, files.added)):
        if (directory / name).is_file():
            contents[name] = read(directory)
    return contents


def _vocabulary_contents(directory: Path) -> dict[str, Any]:
    """The one vocabulary that transformers would read, of those that are there."""
    if (directory / files.TOKENIZER).is_file():
        return {files.TOKENIZER: files.vocabulary(directory)}
    for names, most in (
        ((files.SENTENCEPIECE,), files.MAX_SENTENCEPIECE),
        ((files.VOCABULARY, files.MERGES), files.MAX_FILE),
    ):
        if all((directory / name).is_file() for name in names):
            contents = {name: files.read_bytes(directory / name, most) for name in names}
            if files.SENTENCEPIECE in contents:
                files.check_sentencepiece(contents[files.SENTENCEPIECE], directory / files.SENTENCEPIECE)
            return contents
    raise ValueError(
        f"{directory} holds no tokenizer; expected {files.TOKENIZER}, {files.SENTENCEPIECE}, or {files.VOCABULARY} "
        f"with {files.MERGES}: get the files again"
    )


def _families(directory: Path) -> list[type[Backbone]]:
    """The family that config.json names; without the file, every one."""
    if not (directory / CONFIG).is_file():
        return [backbone_class(name) for name in FAMILIES]
    return [family_in(directory)]
