"""The tokenizer of vladva-tiny: byte-level BPE with one token per word of the drawn world.

The full byte alphabet is in the vocabulary, so any Unicode text can be encoded and is decoded unchanged.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from vladva_clip.scenes import long_caption, scenes, short_captions
from vladva_clip.scenes.wordings import all_wordings

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
MAX_TOKENS = 896
"""Upper bound of the vocabulary; the model's embedding has more rows, for tokens added later."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% else %} ASSISTANT: {% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on the drawn world's captions and on further texts.

    Args:
        texts: prompts, questions and answers that the model reads besides captions.

    Returns:
        A fast tokenizer that puts `<s>` in front of a text, as Llama's does.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_TOKENS,
        min_frequency=2,
        special_tokens=[BOS, EOS, PAD, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return _wrap(tokenizer)


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="right",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _corpus(texts: list[str]) -> Iterator[str]:
    """Captions and texts, then every word alone: a caption may start with any of them."""
    drawn = [scene for style in ("classic", "varied") for scene in scenes("train", 0, 400, style)]
    captions = [caption for scene in drawn for caption in (*short_captions(scene), long_caption(scene))]
    captions += all_wordings()
    yield from captions
    yield from texts * 3
    words = {word.strip(".,:?") for text in (*captions, *texts) for word in text.split()}
    for word in sorted(words):
        yield from (word, word, f"a {word}", f"a {word}")
