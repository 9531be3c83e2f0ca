"""All hand-made attacks, by name."""

import stranger_adapters
import stranger_configs
import stranger_files
import stranger_tensors
import stranger_tokenizers
import stranger_vocabularies
from stranger_cases import Attack

_KINDS = (
    stranger_configs,
    stranger_tokenizers,
    stranger_vocabularies,
    stranger_adapters,
    stranger_tensors,
    stranger_files,
)
ATTACKS: tuple[Attack, ...] = tuple({one.name: one for kind in _KINDS for one in kind.attacks()}.values())
