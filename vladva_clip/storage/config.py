"""Frozen dataclasses of everything that defines an embedding, and their strict JSON form.

They define completely what an adapter means: two models with equal `VladvaConfig` and equal weights give equal
features.
"""

import dataclasses
import difflib
import numbers
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path

import vladva_clip
from vladva_clip.storage import json_files, prompt_config
from vladva_clip.storage.encoding_config import EncodingConfig
from vladva_clip.storage.prompt_config import PromptConfig

FORMAT_VERSION = 3
READABLE = range(1, FORMAT_VERSION + 1)
HUB, LOCAL = "hf-hub:", "local-dir:"  # prefixes of a source's name, as in open_clip
MAX_IMAGE_SIZE, MAX_WIDTH, MAX_CONTEXT_LENGTH = 1 << 14, 1 << 16, 1 << 15
MAX_PIXEL = 1e4  # bound of a mean, and of a std and its inverse; published values are between 0.2 and 1
LOGIT_SCALE_LIMIT = 80.0  # float32's exp overflows at 88.7; CLIP clips at 4.6
MAX_LOGIT_BIAS = 1e4  # SigLIP starts at -10
CLIP_LOGIT_SCALE = 2.6592600369327783  # ln(1 / 0.07): where CLIP (arXiv 2103.00020, section 2.5) starts its logit scale
# OpenAI's pixel statistics (CLIP's code), the default of LLaVA's, Qwen2-VL's and Qwen2.5-VL's processors
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, as processors store them
DTYPES = ("float32", "bfloat16", "float16")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Return a hint with the known names nearest to `name`, or with all of them if none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"


def read_json(path: Path, limits: json_files.Limits = json_files.USUAL) -> dict[str, typing.Any]:
    """Read a JSON object.

    Raises:
        ValueError: the file is missing, not a JSON object, or refused by `json_files.read`.
    """
    if not path.exists():
        raise ValueError(f"{path.name} is missing from {path.parent}; is it a model's directory?")
    data = json_files.read(path, limits)
    if not isinstance(data, dict):
        raise ValueError(f"{path} contains {type(data).__name__}, expected an object")
    return data


def positive(data: dict[str, typing.Any], key: str, where: str, default: int | None = None) -> int:
    """Return the size `data[key]`, or the default if it is absent.

    Args:
        data: an object of a JSON file.
        key: the size's name.
        where: prefix of the key in the error message, such as "config.json: vision_config.".
        default: None for a key that is required.

    Raises:
        ValueError: a required key is absent, or the value is not a positive whole number.
    """
    value = data.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}{key} is {value!r}, expected a positive whole number")
    return value


@dataclass(frozen=True)
class BaseConfig:
    """The LVLM under the encoder: its source, its family, and the fingerprint that it must have."""

    id: str  # a Hub id, `local-dir:PATH`, or the name of a packaged model
    family: str  # transformers' model_type, such as "llava" or "qwen2_vl"
    revision: str | None = None
    fingerprint: str | None = None  # vladva_clip.storage.weights.fingerprint
    profile: str | None = None  # the published embedder as which its files are read; None for a bare LVLM

    def __post_init__(self) -> None:
        if self.fingerprint is not None and not re.fullmatch(r"sha256:[0-9a-f]{64}", self.fingerprint):
            raise ValueError(f"base.fingerprint is {self.fingerprint!r:.80}, expected sha256: and 64 digits")


@dataclass(frozen=True)
class ImageConfig:
    """How a PIL image becomes the vision tower's input; fields and meaning as in open_clip's PreprocessCfg."""

    size: int  # pixels, height and width
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"  # shortest (then center crop), longest (then pad) or squash
    fill_color: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("interpolation", tuple(RESAMPLING.values())),
            ("resize_mode", ("shortest", "longest", "squash")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"image {name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        _check_size("image size", self.size, MAX_IMAGE_SIZE)
        if type(self.fill_color) is not int or not 0 <= self.fill_color <= 255:
            raise ValueError(f"image fill_color is {self.fill_color!r}, expected a whole number from 0 to 255")
        _check_channels("image mean", self.mean, -MAX_PIXEL, MAX_PIXEL)
        _check_channels("image std", self.std, 1 / MAX_PIXEL, MAX_PIXEL)

    @classmethod
    def of_processor(cls, processor: dict[str, typing.Any] | None, size: int, resize_mode: str) -> "ImageConfig":
        """Read colors and resampling from an image processor's JSON; without one, use CLIP's colors.

        Raises:
            ValueError: mean or std is missing or not three numbers, or the resampling is not supported.
        """
        if processor is None:
            return cls(size, CLIP_MEAN, CLIP_STD, resize_mode=resize_mode)
        resample = processor.get("resample", 3)  # published processors omit it if it is bicubic
        if resample not in tuple(RESAMPLING):  # a tuple: the file's value may be unhashable
            raise ValueError(f"image resample is {resample!r}, expected one of {RESAMPLING}")
        mean, std = (_tuple(processor.get(name)) for name in ("image_mean", "image_std"))
        return cls(size, mean, std, RESAMPLING[resample], resize_mode)


@dataclass(frozen=True)
class VladvaConfig:
    """Everything that defines an embedding except the tensors."""

    base: BaseConfig
    prompt: PromptConfig
    image: ImageConfig
    embed_dim: int
    context_length: int = 256  # tokens, the final eot included
    dtype: str = "float32"  # the dtype the model computes in unless a caller names a precision
    logit_scale: float = CLIP_LOGIT_SCALE  # the logarithm of the scale
    logit_bias: float | None = None  # added to every logit; only the sigmoid loss trains one
    format_version: int = FORMAT_VERSION
    encoding: EncodingConfig = EncodingConfig()
    written_by: str | None = dataclasses.field(default=None, compare=False)  # a release; it decides nothing

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r:.40}, expected one of {', '.join(DTYPES)}")
        if not isinstance(self.context_length, numbers.Integral) or not 2 <= self.context_length <= MAX_CONTEXT_LENGTH:
            raise ValueError(
                f"context_length is {self.context_length!r} tokens, expected a whole number of at least 2 and at most "
                f"{MAX_CONTEXT_LENGTH}"
            )
        _check_size("embed_dim", self.embed_dim, MAX_WIDTH)
        if not abs(self.logit_scale) <= LOGIT_SCALE_LIMIT:  # nor NaN
            raise ValueError(
                f"logit_scale is {self.logit_scale!r}, expected a logarithm from -{LOGIT_SCALE_LIMIT:g} to "
                f"{LOGIT_SCALE_LIMIT:g}"
            )

        if self.logit_bias is not None and not abs(self.logit_bias) <= MAX_LOGIT_BIAS:
            raise ValueError(
                f"logit_bias is {self.logit_bias!r}, expected a number from -{MAX_LOGIT_BIAS:g} to {MAX_LOGIT_BIAS:g}"
            )

    def replace(self, **changes: typing.Any) -> "VladvaConfig":
        """Return a copy with the given fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, typing.Any]:
        """Return the JSON form (lists for tuples), which `from_dict` reads back to an equal config.

        A bias of None is left out, so that earlier releases, which know no bias, can read the config.
        """
        data = _plain(dataclasses.asdict(self))
        return data if self.logit_bias is not None else {key: data[key] for key in data if key != "logit_bias"}

    @classmethod
    def from_dict(cls, data: dict[str, typing.Any]) -> "VladvaConfig":
        """Build a config from its JSON form. One of an earlier format version becomes the equal one of this version.

        Raises:
            ValueError: another format version, an unknown key (the message names the nearest one), a missing key, or a
                wrong type.
        """
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is not int or version not in READABLE:
            raise ValueError(_unknown_format(version, data))
        return _build(cls, _upgraded(data, version), "config")


def prompt_to_dict(prompt: PromptConfig) -> dict[str, typing.Any]:
    """Return the JSON form of templates by themselves."""
    return {"format_version": FORMAT_VERSION, "prompt": dataclasses.asdict(prompt)}


def prompt_from_dict(data: dict[str, typing.Any]) -> PromptConfig:
    """Read templates from the form that `prompt_to_dict` returns.

    Raises:
        ValueError: as `VladvaConfig.from_dict`.
    """
    version = data.get("format_version")
    if type(version) is not int or version not in READABLE[1:]:
        raise ValueError(_unknown_format(version, data))
    prompt = data.get("prompt")
    return _build(
        PromptConfig, prompt if version == FORMAT_VERSION else prompt_config.upgraded(prompt, version), "prompt"
    )


def _upgraded(data: dict[str, typing.Any], version: int) -> dict[str, typing.Any]:
    """Return a config's JSON form with what an earlier format version implies stated."""
    if version == FORMAT_VERSION:
        return data
    for key in ("encoding",):
        if key in data:
            raise ValueError(
                f"config has the unknown key {key!r}; format version {version} has none: get the file again"
            )
    prompt = prompt_config.upgraded(data.get("prompt"), version)
    implied = {"encoding": _plain(dataclasses.asdict(EncodingConfig()))}
    return {**data, **implied, "format_version": FORMAT_VERSION, "prompt": prompt}


def _unknown_format(version: typing.Any, data: typing.Any) -> str:
    """Return the message for another format version: the release that wrote the file, or a later one, can read it."""
    readable = f"{READABLE[0]} to {READABLE[-1]}"
    found = f"format_version is {version!r:.40}, this vladva_clip ({vladva_clip.__version__}) reads {readable}"
    writer = data.get("written_by") if isinstance(data, dict) else None
    if isinstance(writer, str) and re.fullmatch(r"[0-9A-Za-z.+!-]{1,40}", writer):
        return f"{found}: install the vladva_clip release that wrote it, {writer}, or a later one"
    return f"{found}: install the vladva_clip release that wrote it (the file doesn't name it), or the latest one"


def _check_size(name: str, value: typing.Any, largest: int) -> None:
    if type(value) is not int or not 1 <= value <= largest:
        raise ValueError(f"{name} is {value!r:.60}, expected a positive whole number, at most {largest}")


def _tuple(value: typing.Any) -> typing.Any:
    return tuple(value) if isinstance(value, list) else value


def _check_channels(name: str, values: typing.Any, low: float, high: float) -> None:
    numbers = values if isinstance(values, tuple) and len(values) == 3 else [None]
    if not all(type(x) in (int, float) and low <= x <= high for x in numbers):  # nor NaN
        sign = " above 0," if low > 0 else ""
        raise ValueError(f"{name} is {values!r}, expected three finite numbers{sign} from {low:g} to {high:g}")


def _plain(value: typing.Any) -> typing.Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _build(cls: type, data: typing.Any, where: str) -> typing.Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {type(data).__name__}, expected an object with keys")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise ValueError(f"{where} has the unknown key {key!r:.80}; {nearest(key, fields)}")
    stated = cls in (PromptConfig, EncodingConfig)  # an older meaning must not be read into what a file leaves out
    required = {name for name, field in fields.items() if stated or field.default is dataclasses.MISSING}
    required |= {"encoding"} if cls is VladvaConfig else set()
    if missing := sorted(required - set(data)):
        raise ValueError(f"{where} lacks {', '.join(missing)}: get the file again")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _coerce(value, hints[key], f"{where}.{key}") for key, value in data.items()})


def _coerce(value: typing.Any, hint: typing.Any, where: str) -> typing.Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if typing.get_origin(hint) is types.UnionType:  # `X | None`
        inner = next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        return None if value is None else _coerce(value, inner, where)
    if typing.get_origin(hint) is tuple:
        args = typing.get_args(hint)
        if args[-1] is Ellipsis and isinstance(value, list | tuple):
            args = args[:1] * len(value)
        if not isinstance(value, list | tuple) or len(value) != len(args):
            raise ValueError(f"{where} is {value!r:.80}, expected {len(args)} numbers")
        return tuple(_coerce(item, arg, where) for item, arg in zip(value, args, strict=True))
    return _scalar(value, hint, where)


def _scalar(value: typing.Any, hint: type, where: str) -> typing.Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} is {value!r:.80} ({type(value).__name__}), expected {hint.__name__}")
    return value
