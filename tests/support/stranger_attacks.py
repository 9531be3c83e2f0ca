"""All hand-made attacks, by name."""

import stranger_adapters
import stranger_configs
import stranger_tokenizers
from stranger_cases import Attack

_EVERY = (*stranger_configs.attacks(), *stranger_tokenizers.attacks(), *stranger_adapters.attacks())
ATTACKS: tuple[Attack, ...] = tuple({attack.name: attack for attack in _EVERY}.values())
