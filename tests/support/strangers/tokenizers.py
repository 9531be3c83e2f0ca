"""Hand-made attacks by a base's tokenizer, chat template and processor files."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.strangers.cases import Attack, Case
from tests.support.strangers.configs import BIG, NAN, ODD, one

FILE, SETTINGS = "base/tokenizer.json", "base/tokenizer_config.json"
IMAGES, PROCESSOR, CHAT = "base/preprocessor_config.json", "base/processor_config.json", "base/chat_template.jinja"
SPECIAL = {"llava": ("</s>", "<image>", "<s>"), "qwen2_vl": ("<|im_end|>", "<|image_pad|>", "<|vision_start|>")}
SLOW = ("(a+)+$", "(?:a|a)*b", "(.*)*x", "((((a*)*)*)*)*$", r"(?<=(a+)+)b", "(?:(?:(?:a{1,99}){1,99}){1,99}){1,99}")
TOKENIZERS = (
    *("LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "CLIPTokenizer", "BertTokenizer", "T5Tokenizer"),
    *("GPT2Tokenizer", "WhisperTokenizer", "TokenizersBackend", "PythonBackend", "SentencePieceBackend"),
    *("MistralCommonBackend", "CanineTokenizer", "Wav2Vec2CTCTokenizer", "TapasTokenizer", "RagTokenizer", "Nothing"),
    *("", "../x", "PreTrainedTokenizerFast", "XLNetTokenizer", "BartphoTokenizer", "EsmTokenizer", "ByT5Tokenizer"),
)
CLASSES = (
    *("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "Qwen2VLImageProcessor", "Nothing", ""),
    *("TimmWrapperImageProcessor", "SamImageProcessor", "OwlViTImageProcessor", "LayoutLMv3ImageProcessor", "os"),
    *(
        "WhisperFeatureExtractor",
        "LlavaProcessor",
        "Qwen2VLProcessor",
        "AutoProcessor",
        "PixtralProcessor",
        "Sam3Processor",
    ),
)
LOOPS = (
    "{% for a in range(1000000000) %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 1000000000 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch sprung') }}",
    "{% include '/etc/passwd' %}",
    "{{ raise_exception('no') }}",
    "{% generation %}{% endgeneration %}",
    "{" * 5000,
    "{% if 1 %}" * 3000,
    "{{ " + "(" * 3000 + ")" * 3000 + " }}",
    "",
    "<image>" * 1000,
    "\0",
    "{{ messages[0]['content'] }}",
    "{{ strftime_now('%' * 1000000) }}",
    "{{ '%1000000000d' % 3 }}",
    "{{ messages | tojson(indent=100000000) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ lipsum(n=100000000) }}",
)


def attacks() -> list[Attack]:
    """All of them."""
    return [*_trees(), *_specials(), *_settings(), *_processors(), *_templates()]


def edited(name: str, edit: Callable[[dict, Case], Any], expect: str = "any", file: str = FILE) -> Attack:
    """A JSON file changed by a function, in place or by what it returns."""

    def apply(case: Case) -> None:
        data = case.read(file)
        changed = edit(data, case)
        case.put(file, data if changed is None else changed)

    return Attack(f"{file.rpartition('/')[2]}: {name}", file.partition("/")[0], apply, expect)


def _split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _trees() -> list[Attack]:
    parts: list[tuple[str, str, Any]] = []
    for pattern in (*SLOW, "(", "a" * 100_000, "[" * 1000, "(?:" * 1000):
        parts += [("pre_tokenizer", f"split by {pattern:.20}", _split(pattern))]
        parts += [("normalizer", f"replace {pattern:.20}", _replace(pattern, "b"))]
        parts += [("decoder", f"decodes {pattern:.20}", _replace(pattern, "b"))]
    parts += [("normalizer", "grows", {"type": "Sequence", "normalizers": [_replace(".", "aaaaaaaaaa")] * 12})]
    parts += [("normalizer", "prepends a megabyte", {"type": "Prepend", "prepend": "a" * 900_000})]
    parts += [("normalizer", "a bad map", {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"})]
    parts += [("normalizer", "empties", _replace(".*", ""))]
    nested: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(14):
        nested = {"type": "Sequence", "normalizers": [nested]}
    parts += [
        ("normalizer", "deep", nested),
        ("normalizer", "many", {"type": "Sequence", "normalizers": [nested] * 500}),
    ]
    doubling = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
    parts += [("post_processor", "the text many times", {**doubling, "single": [_sequence()] * 5000})]
    parts += [("post_processor", "nothing", {**doubling, "single": []})]
    token = {"x": {"id": "x", "ids": list(range(9000)), "tokens": ["x"] * 9000}}
    many = [{"SpecialToken": {"id": "x", "type_id": 0}}, _sequence()]
    parts += [("post_processor", "adds tokens", {**doubling, "single": many, "special_tokens": token})]
    far = {"x": {"id": "x", "ids": [4_000_000_000], "tokens": ["x"]}}
    parts += [("post_processor", "adds a far id", {**doubling, "single": many, "special_tokens": far})]
    parts += [
        ("truncation", "to nothing", {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9})
    ]
    padding = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    parts += [("padding", "to much", {**padding, "strategy": {"Fixed": 1 << 34}})]
    parts += [("padding", "to a multiple", {**padding, "strategy": "BatchLongest", "pad_to_multiple_of": 1 << 30})]
    parts += [(key, f"is {value!r}", value) for key in ("model", "added_tokens", "version", "decoder") for value in ODD]
    return [
        edited(f"{key} {name}", lambda data, case, key=key, value=value: data.update({key: value}))
        for key, name, value in parts
    ]


def _sequence() -> dict[str, Any]:
    return {"Sequence": {"id": "A", "type_id": 0}}


def _added(content: str, number: Any, **more: Any) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **flags, **more}


def _specials() -> list[Attack]:
    def token(data: dict, case: Case, which: int) -> dict:
        content = SPECIAL[case.family][which]
        return next(item for item in data["added_tokens"] if item["content"] == content)

    made = []
    for which, title in enumerate(("the end", "the image", "the start")):
        for key, value in (
            ("special", False),
            ("normalized", True),
            ("lstrip", True),
            ("single_word", True),
            ("id", 3),
        ):
            change = {key: value}
            made.append(
                edited(f"{title} {change}", lambda d, c, which=which, change=change: token(d, c, which).update(change))
            )
        made.append(edited(f"without {title}", lambda d, c, which=which: d["added_tokens"].remove(token(d, c, which))))
        made += [
            edited(
                f"{title} at {number}", lambda d, c, which=which, number=number: token(d, c, which).update(id=number)
            )
            for number in (-1, 100_000, (1 << 32) - 1, 1 << 40, 1.5, "3", None)
        ]
    grown: dict[str, Callable[[dict, Case], Any]] = {
        "very many tokens": lambda d, c: d["added_tokens"].extend(_added(f"t{n}", 500 + n) for n in range(5_000)),
        "a million tokens": lambda d, c: _million(d),
        "one long token": lambda d, c: d["added_tokens"].append(_added("a" * 500_000, 380)),
        "an empty token": lambda d, c: d["added_tokens"].append(_added("", 380)),
        "the same token twice": lambda d, c: d["added_tokens"].append(_added("a", 380)),
        "letters as special tokens": lambda d, c: d["added_tokens"].extend(
            _added(x, 385 + n) for n, x in enumerate("aeiou ")
        ),
        "words beyond the embedding": lambda d, c: d["model"]["vocab"].update(
            {x: 10**6 + n for n, x in enumerate(d["model"]["vocab"])}
        ),
        "all words the same": lambda d, c: d["model"]["vocab"].update(dict.fromkeys(d["model"]["vocab"], 5)),
        "negative words": lambda d, c: d["model"]["vocab"].update(dict.fromkeys(d["model"]["vocab"], -5)),
        "no words": lambda d, c: d["model"].update(vocab={}, merges=[]),
        "merges of nothing": lambda d, c: d["model"].update(merges=[["qq", "zz"]] * 50),
        "merges of one": lambda d, c: d["model"].update(merges=["a"] * 50),
        "chance": lambda d, c: d["model"].update(dropout=0.9),
        "certain chance": lambda d, c: d["model"].update(dropout=1.0),
        "bytes": lambda d, c: d["model"].update(byte_fallback=True, unk_token="nothing"),
        "a suffix": lambda d, c: d["model"].update(end_of_word_suffix="x" * 100_000),
        "a prefix": lambda d, c: d["model"].update(continuing_subword_prefix="##"),
        "another kind": lambda d, c: d["model"].update(type="WordPiece"),
        "unigram": lambda d, c: d.update(model={"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]] * 3000}),
        "unigram, far": lambda d, c: d.update(model={"type": "Unigram", "unk_id": 10**6, "vocab": [["a", 0.0]]}),
        "word level": lambda d, c: d.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "x"}),
        "nothing": lambda d, c: {},
        "a list": lambda d, c: [],
        "half": lambda d, c: json.dumps(d)[: len(json.dumps(d)) // 2],
        "deep": lambda d, c: "[" * 200_000,
        "deep objects": lambda d, c: '{"model":' * 100_000,
        "no text": lambda d, c: b"\xff\xfe" * 1000,
        "empty": lambda d, c: "",
        "blank": lambda d, c: " " * (40 << 20),
    }
    return [*made, *(edited(name, edit) for name, edit in grown.items())]


def _million(data: dict) -> str:
    """As text: a list of dicts would cost more here than where it is read."""
    extra = ",".join(json.dumps(_added(f"t{number}", 500 + number)) for number in range(1_000_000))
    return json.dumps({**data, "added_tokens": []})[:-1] + f',"added_tokens":[{extra}]}}'


def _settings() -> list[Attack]:
    made = [one("tokenizer_class", name, file=SETTINGS) for name in TOKENIZERS]
    keys = ("extra_special_tokens", "additional_special_tokens", "added_tokens_decoder", "model_max_length", "backend")
    keys += ("eos_token", "bos_token", "pad_token", "unk_token", "chat_template", "model_specific_special_tokens")
    keys += ("clean_up_tokenization_spaces", "add_bos_token", "legacy", "from_slow", "use_fast", "tokenizer_file")
    keys += (
        "vocab_file",
        "merges_file",
        "processor_class",
        "fix_mistral_regex",
        "split_special_tokens",
        "padding_side",
    )
    keys += ("tokenizer_object", "__slow_tokenizer", "gguf_file", "init_inputs", "auto_map", "special_tokens_pattern")
    made += [one(key, value, file=SETTINGS) for key in keys for value in (*ODD, "org/x", "../../outside/secret.json")]
    pairs: dict[str, Any] = {
        "added_tokens_decoder": {"-1": {"content": "x"}},
        "eos_token": {"__type": "AddedToken", "content": "x" * 10_000},
        "extra_special_tokens": {f"t{number}": f"<{number}>" for number in range(3000)},
        "additional_special_tokens": [f"<{number}>" for number in range(3000)],
        "chat_template": [{"name": "default", "template": LOOPS[0]}, {"name": "../../x", "template": "x"}],
        "auto_map": {"AutoTokenizer": ["NOTICE.Tokenizer", "org/repo--NOTICE.Tokenizer"]},
        "model_max_length": NAN,
    }
    made += [one(key, value, file=SETTINGS) for key, value in pairs.items()]
    far = {str(number): {"content": f"<{number}>", "special": True} for number in (BIG, 1 << 33)}
    made += [one("added_tokens_decoder", far, file=SETTINGS)]
    for name in ("tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"):
        for text in ("{}", "", "[" * 50_000, '{"a": -1}', '{"eos_token": ["x"]}', b"\n\x80\x08" * 50):
            made.append(Attack(f"{name} holds {text!r:.20}", "base", lambda c, n=name, t=text: c.put(f"base/{n}", t)))
    return made


def _processors() -> list[Attack]:
    made = []
    for file in (IMAGES, PROCESSOR):
        for key in ("image_processor_type", "processor_class", "feature_extractor_type", "video_processor_type"):
            made += [one(key, name, file=file) for name in CLASSES]
        made += [one("auto_map", {"AutoProcessor": "NOTICE.P", "AutoImageProcessor": "NOTICE.I"}, file=file)]
        made += [one("image_processor", value, file=file) for value in ({"image_processor_type": "os"}, *ODD)]
    sizes = (
        0,
        -1,
        BIG,
        1.5,
        {"shortest_edge": BIG},
        {"height": 0, "width": 56},
        {"longest_edge": 1},
        {"x": 1},
        [56],
        "56",
    )
    made += [one(key, size, file=IMAGES) for key in ("size", "crop_size", "pad_size") for size in sizes]
    colors = ([], [0.5], [0.5] * 4, [0, 0, 0], [NAN] * 3, [1e-300] * 3, [1e300] * 3, "mean", None, [True] * 3, {"a": 1})
    made += [one(key, color, file=IMAGES) for key in ("image_mean", "image_std") for color in colors]
    keys = ("resample", "do_resize", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb")
    keys += ("patch_size", "merge_size", "temporal_patch_size", "min_pixels", "max_pixels", "data_format", "device")
    made += [one(key, value, file=IMAGES) for key in keys for value in (0, -1, BIG, NAN, "x", None, [3])]
    keys = (
        "patch_size",
        "num_additional_image_tokens",
        "image_token",
        "vision_feature_select_strategy",
        "chat_template",
    )
    return made + [one(key, value, file=PROCESSOR) for key in keys for value in (0, -1, BIG, "x", None, [3], LOOPS[0])]


def _templates() -> list[Attack]:
    def put(file: str, text: Any) -> Callable[[Case], None]:
        return lambda case: case.put(file, text)

    made = [Attack(f"chat {text:.40}", "base", put(CHAT, text), entry="export base") for text in LOOPS]
    made += [Attack(f"chat when loaded {text:.40}", "base", put(CHAT, text)) for text in LOOPS]
    made += [
        Attack(f"chat in JSON {text:.40}", "base", put("base/chat_template.json", {"chat_template": text}))
        for text in LOOPS[:3]
    ]
    return [*made, Attack("a large chat template", "base", lambda case: case.put(CHAT, "a" * (64 << 20)))]
