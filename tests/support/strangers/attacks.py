"""All hand-made attacks, by name."""

from tests.support.strangers import adapters, configs, files, tensors, tokenizers, vocabularies
from tests.support.strangers.cases import Attack

_KINDS = (
    configs,
    tokenizers,
    vocabularies,
    adapters,
    tensors,
    files,
)
ATTACKS: tuple[Attack, ...] = tuple({one.name: one for kind in _KINDS for one in kind.attacks()}.values())
