"""Zero-shot classifiers: open_clip's builder, for many more texts a second.

Each distinct text is embedded once, texts with a common beginning share its computation (`shared_prefix`), rows are
sorted by length over the whole set, and finished classifiers are kept on disk (`classifier_cache`).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import open_clip
import torch
import torch.nn.functional as F

from vladva_clip.encoder.token_rows import split_captions
from vladva_clip.interface import devices
from vladva_clip.model import VladvaCLIP
from vladva_clip.zero_shot import classifier_cache, encoder_identity, rendering
from vladva_clip.zero_shot.rendering import Template
from vladva_clip.zero_shot.shared_prefix import Ids, encode_in_groups

TEXTS_PER_CALL = 1000  # of the tokenizer; its rows are as wide as the context length


def build_zero_shot_classifier(
    model: Any,
    tokenizer: Any,
    classnames: Sequence[str],
    templates: Sequence[Template],
    num_classes_per_batch: int | None = 10,
    device: str | torch.device | None = None,
    use_tqdm: bool = False,
    *,
    cache: bool = True,
    cache_dir: str | os.PathLike[str] | None = None,
) -> torch.Tensor:
    """Average each class's normalized text features over the templates (CLIP, arXiv 2103.00020, section 3.1.4).

    The result equals that of open_clip's function of this name, up to rounding. The model is in eval mode meanwhile.

    Args:
        model: a VladvaCLIP; other open_clip models are passed to open_clip's own function.
        tokenizer: the model's tokenizer.
        classnames: names of the classes.
        templates: functions of a name, or strings with a hole `{}`.
        num_classes_per_batch: for open_clip's callers; here `model.text.micro_batch_tokens` limits the batches.
        device: of the result (see `devices.resolve`); None means the model's.
        use_tqdm: show how many texts are done.
        cache: keep the classifier on disk. It is reused if the weights, the modules, the prompt, the tokenizer and all
            texts are the same, and the model still computes the same features for 16 of the texts. Not cached: an
            unmerged LoRA, quantized weights, models with hooks or custom code (they run through `encode_text`), and
            tokenizers of other packages.
        cache_dir: the cache's directory; None means `classifier_cache.default_directory()`.

    Returns:
        `(D, classes)` float32, each column of length 1.

    Raises:
        ValueError: no classes or templates, a string instead of a sequence, names that are not strings or are all
            equal, a template without the name, names cut off by the context length, another model's tokens, or an
            unavailable device.
    """
    renders = rendering.renderers(classnames, templates)
    rendering.warn_of_alike(classnames, stacklevel=2)
    if device is not None or not isinstance(model, VladvaCLIP):
        device = devices.resolve(device)
    if not isinstance(model, VladvaCLIP):
        return open_clip.build_zero_shot_classifier(
            model, tokenizer, classnames, renders, num_classes_per_batch, device, use_tqdm
        )
    device = model.visual.backbone.device if device is None else device
    with model.evaluating():
        if encoder_identity.is_altered(model):  # then only encode_text itself is known to be right
            return open_clip.build_zero_shot_classifier(
                model, tokenizer, classnames, renders, num_classes_per_batch, device, use_tqdm
            ).float()
        texts = rendering.texts(classnames, renders)
        return _cached(model, tokenizer, texts, len(classnames), use_tqdm, cache, cache_dir).to(device)


def build_zero_shot_classifier_legacy(
    model: Any,
    tokenizer: Any,
    classnames: Sequence[str],
    templates: Sequence[Template],
    device: str | torch.device | None = None,
    use_tqdm: bool = False,
) -> torch.Tensor:
    """open_clip's older builder, one class at a time; for a VladvaCLIP, the same as `build_zero_shot_classifier`.

    Raises:
        ValueError: as `build_zero_shot_classifier`.
    """
    if not isinstance(model, VladvaCLIP):
        renders = rendering.renderers(classnames, templates)
        return open_clip.build_zero_shot_classifier_legacy(
            model, tokenizer, classnames, renders, devices.resolve(device), use_tqdm
        )
    return build_zero_shot_classifier(model, tokenizer, classnames, templates, device=device, use_tqdm=use_tqdm)


def _cached(
    model: VladvaCLIP,
    tokenizer: Any,
    texts: list[str],
    classes: int,
    use_tqdm: bool,
    cache: bool,
    cache_dir: str | os.PathLike[str] | None,
) -> torch.Tensor:
    build = partial(_build, model, tokenizer, texts, classes, use_tqdm)
    key = classifier_cache.key(model, tokenizer, texts, classes) if cache else None
    if key is None:
        return build()
    probe = partial(_features, model, tokenizer, classifier_cache.probes(texts, key))
    dtype = model.visual.backbone.dtype
    return classifier_cache.cached(key, (model.embed_dim, classes), dtype, build, probe, cache_dir)


@torch.no_grad()
def _features(model: VladvaCLIP, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    return model.encode_text(tokenizer(texts), normalize=True).float().cpu()


@torch.no_grad()
def _build(model: VladvaCLIP, tokenizer: Any, texts: list[str], classes: int, use_tqdm: bool) -> torch.Tensor:
    """Return `(D, classes)` float32 on the CPU; the texts are ordered by class."""
    every = list(_captions(model, tokenizer, texts))
    _refuse_cut(every, texts, classes)
    places = _classes_of(every, len(texts) // classes)
    captions = list(places)
    # float64 hides the order of summation, which differs from open_clip's; on the CPU, which always has float64
    sums = torch.zeros(classes, model.embed_dim, dtype=torch.float64)
    for rows, features in _progress(encode_in_groups(model.text, captions), len(captions), use_tqdm):
        normalized = F.normalize(features.float(), dim=-1).cpu().double()
        pairs = [(place, cls) for place, row in enumerate(rows) for cls in places[captions[row]]]
        where, which = torch.tensor(pairs).T
        sums.index_add_(0, which, normalized[where])
    return F.normalize(sums, dim=-1).float().T.contiguous()


def _captions(model: VladvaCLIP, tokenizer: Any, texts: list[str]) -> Iterator[Ids]:
    """Tokenize each distinct text once; yield every text's ids, without the end of text."""
    different = list(dict.fromkeys(texts))
    ids: dict[str, Ids] = {}
    for start in range(0, len(different), TEXTS_PER_CALL):
        some = different[start : start + TEXTS_PER_CALL]
        rows = split_captions(tokenizer(some), model.text.prompts.eot_token_id, model.vocab_size)
        ids |= {text: tuple(row.tolist()) for text, row in zip(some, rows, strict=True)}
    return map(ids.__getitem__, texts)


def _refuse_cut(captions: list[Ids], texts: list[str], classes: int) -> None:
    """Refuse different texts with the same tokens for all classes: the tokenizer cut the names off."""
    count = len(texts) // classes
    if classes > 1 and all(captions[place] == captions[place % count] for place in range(len(captions))):
        raise ValueError(
            f"the {classes} classes have the same tokens, although their texts differ ({texts[0]!r:.80} and "
            f"{texts[count]!r:.80}): the tokenizer omits the names or cuts them off. Use shorter templates or a larger "
            "context_length"
        )


def _classes_of(captions: Iterable[Ids], templates: int) -> dict[Ids, list[int]]:
    """Map each distinct caption to its classes, with repetitions."""
    places: dict[Ids, list[int]] = {}
    for number, caption in enumerate(captions):
        places.setdefault(caption, []).append(number // templates)
    return places


def _progress(
    batches: Iterable[tuple[list[int], torch.Tensor]], total: int, show: bool
) -> Iterator[tuple[list[int], torch.Tensor]]:
    if not show:
        yield from batches
        return
    from tqdm import tqdm  # a dependency of open_clip

    with tqdm(total=total, unit="text") as bar:
        for rows, features in batches:
            yield rows, features
            bar.update(len(rows))
