"""The losses: functions of features and hidden states that know no model, and the table a recipe chooses from.

To add a contrastive loss on the existing features, write its function in `contrastive.py` (or a file beside it), add a
line to `CONTRASTIVE`, and document the new value of `loss.contrastive`. Nothing else names a loss. Torch is not
imported here: the command line reads the table before it needs torch.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

PARTS = ("contrastive", "text_text", "ntp")
"""The parts of the loss as metrics.jsonl names them; `LossSection.weights` has their weights."""


@dataclass(frozen=True)
class Contrastive:
    """A contrastive loss: where its function is, and which arguments it takes beyond the common ones.

    Attributes:
        address: the function as `module:name`. It is called as `info_nce` is (features of the global batch, log of the
            logit scale, masks, hard negatives), and returns a scalar.
        bias_start: where the learned scalar `logit_bias` starts in a model that has none; None for a loss without a
            bias. The logit scale is learned with every loss and starts at the model's own.
        settings: the keys of the recipe's loss section that the function takes as arguments of the same names.
    """

    address: str
    bias_start: float | None = None
    settings: tuple[str, ...] = ()

    @property
    def has_bias(self) -> bool:
        """Whether a bias is learned and passed to the function as `logit_bias`."""
        return self.bias_start is not None

    def function(self) -> Callable:
        """Import the function, and torch with it."""
        module, _, name = self.address.partition(":")
        return getattr(importlib.import_module(module), name)


_HERE = "vladva_training.losses.contrastive"

CONTRASTIVE = {  # loss.contrastive -> the loss
    "info_nce": Contrastive(f"{_HERE}:info_nce"),
    "sigmoid": Contrastive(f"{_HERE}:sigmoid_loss", bias_start=-10.0),  # as SigLIP (arXiv 2303.15343, section 3.2)
    "hardness": Contrastive(f"{_HERE}:hardness_weighted_info_nce", settings=("hardness",)),
}
