"""What a vision side hands over."""

import typing

import torch


class Visual(typing.Protocol):
    """What a family's vision side yields for B images: the plain tensor `(B, N, D)`, or a value of the family's own.

    Only the family's backbone reads it. Everyone else passes it on, and may keep it on another device meanwhile.
    """

    def to(self, device: torch.device | str) -> typing.Self:
        """Return it on another device; the family's own value moves all its tensors, as a tensor moves itself."""
