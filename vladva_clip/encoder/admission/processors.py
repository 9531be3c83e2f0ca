"""Build transformers' tokenizer and processor of a base, from copies that hold only what is admitted of its files.

While transformers reads, the copies are in a directory of their own: it sees no other file of the base.
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
from vladva_clip.storage.base import CONFIG, BaseFiles

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


def load_tokenizer(base: BaseFiles) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer; the family's control tokens are special in it, whatever the files say.

    Raises:
        ValueError: no tokenizer, files that transformers can't use, or a tokenizer of another family.
    """
    with checked_copies(base) as copies:
        tokenizer = attempt(lambda: AutoTokenizer.from_pretrained(copies, **_LOCAL), base.directory, "tokenizer")
    mark_control_tokens(tokenizer, base)
    return tokenizer


def load_processor(base: BaseFiles) -> Any:
    """Load a base's processor (transformers' own), with its chat templates.

    Raises:
        ValueError: as `load_tokenizer`; an image processor of another family.
    """
    with checked_copies(base, with_processor=True) as copies:
        processor = attempt(lambda: AutoProcessor.from_pretrained(copies, **_LOCAL), base.directory, "processor")
    mark_control_tokens(processor.tokenizer, base)
    return processor


@contextlib.contextmanager
def checked_copies(base: BaseFiles, with_processor: bool = False) -> Iterator[Path]:
    """Copy what is admitted of a base's small files into a temporary directory, which exists inside the `with` block.

    Args:
        base: the base, or a tokenizer saved by itself.
        with_processor: also copy the image processor's settings.

    Raises:
        ValueError: no tokenizer, or values that aren't admitted.
        OSError: no room in the temporary folder.
    """
    refuse_links_out(base.directory, (*_NAMES, CONFIG))
    contents = _tokenizer_contents(base) | chat_files(base)
    if with_processor:
        settings = processor_settings(base)
        contents |= {PREPROCESSOR: processor_config(base), **({PROCESSOR: settings} if settings else {})}
    with tempfile.TemporaryDirectory(prefix="vladva-base-") as place:
        with disk.writing(place):
            for name, content in contents.items():
                path = Path(place, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        yield Path(place)


def attempt(load: Callable[[], Loaded], directory: Path, what: str, ours: bool = False) -> Loaded:
    """Call one of transformers' loaders, and turn whatever it raises into a ValueError.

    Args:
        load: the loader.
        directory: of the base, for the error.
        what: what it builds, for the error.
        ours: the loader is our own code, whose ValueErrors need no more words.

    Raises:
        ValueError: the loader failed. The library `tokenizers` raises bare Exceptions, and panics, for damaged files.
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


def mark_control_tokens(tokenizer: PreTrainedTokenizerBase, base: BaseFiles) -> None:
    """Make the family's control tokens special in a tokenizer, in place.

    Args:
        tokenizer: the base's, just loaded.
        base: the base.

    Raises:
        ValueError: the tokenizer lacks one of them, gives two the same id, or has another end or start of text than the
            family's.
    """
    tokenizer.name_or_path = str(base.directory)
    known, backend = tokenizer.get_vocab(), tokenizer.backend_tokenizer
    family = _family_of_vocabulary(base, known)
    for name, expected in (("eos_token", family.eos_token), ("bos_token", family.bos_token)):
        found = getattr(tokenizer, name)
        if expected is not None and found != expected:
            raise ValueError(
                f"{base.path(files.SETTINGS)}: {name} is {str(found)!r:.80}, expected {expected!r}, as in every model "
                f"of the family {family.family}"
            )
    if len({known[name] for name in family.control_tokens}) < len(family.control_tokens):
        names = ", ".join(family.control_tokens)
        raise ValueError(f"the tokenizer of {base.directory} gives one id to several of {names}")
    tokens = backend.get_added_tokens_decoder()
    plain = [name for name in family.control_tokens if not getattr(tokens.get(known[name]), "special", False)]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in plain])
    rare = "a \U0001f9ff"  # the token for unknown words is not looked up before the first such word
    attempt(lambda: tokenizer(rare, add_special_tokens=False, split_special_tokens=True), base.directory, "tokenizer")


def control_ids(tokenizer: PreTrainedTokenizerBase, base: BaseFiles) -> frozenset[int]:
    """Return the ids that no caption may have: those of the family's control tokens, and those in config.json."""
    known = tokenizer.get_vocab()
    ids = {known[name] for name in _family_of_vocabulary(base, known).control_tokens}
    if base.has(CONFIG):
        config = read_base_config(base)
        for part in (config, config.get("text_config", {})):
            for value in (part.get(name) for name in _STATED_IDS):
                ids |= set(value) if isinstance(value, list) else {value}
    return frozenset(ids - {None})


def _family_of_vocabulary(base: BaseFiles, known: dict[str, int]) -> type[Backbone]:
    families = _families(base)
    missing = [[name for name in family.control_tokens if name not in known] for family in families]
    for family, names in zip(families, missing, strict=True):
        if not names:
            return family
    raise ValueError(
        f"the tokenizer of {base.directory} lacks {', '.join(missing[0])}, with which {families[0].family} marks where "
        "things begin and end; is it this family's tokenizer? Get the files again"
    )


def _tokenizer_contents(base: BaseFiles) -> dict[str, Any]:
    has_config = base.has(CONFIG)  # a tokenizer that was saved by itself has none
    contents = {CONFIG: read_base_config(base)} if has_config else {}
    contents |= _vocabulary_contents(base)
    if base.has(files.SETTINGS):
        contents[files.SETTINGS] = files.settings(base, _families(base))
    for name, read in ((files.SPECIALS, files.specials), (files.ADDED, files.added)):
        if base.has(name):
            contents[name] = read(base)
    return contents


def _vocabulary_contents(base: BaseFiles) -> dict[str, Any]:
    """The vocabulary that transformers would choose among those present."""
    if base.has(files.TOKENIZER):
        return {files.TOKENIZER: files.vocabulary(base)}
    for names, most in (
        ((files.SENTENCEPIECE,), files.MAX_SENTENCEPIECE),
        ((files.VOCABULARY, files.MERGES), files.MAX_FILE),
    ):
        if all(base.has(name) for name in names):
            contents = {name: base.content(name, most) for name in names}
            if files.SENTENCEPIECE in contents:
                files.check_sentencepiece(contents[files.SENTENCEPIECE], base.path(files.SENTENCEPIECE))
            return contents
    raise ValueError(
        f"{base.directory} holds no tokenizer; expected {files.TOKENIZER}, {files.SENTENCEPIECE}, or "
        f"{files.VOCABULARY} with {files.MERGES}: get the files again"
    )


def _families(base: BaseFiles) -> list[type[Backbone]]:
    """The family that config.json names; all families without the file."""
    if not base.has(CONFIG):
        return [backbone_class(name) for name in FAMILIES]
    return [family_in(base)]
