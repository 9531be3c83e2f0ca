"""How rows become features: positions, attention, pooling, and what a base may lack."""

from dataclasses import dataclass

POSITIONS = ("family", "plain")
POOLINGS = ("last", "mean")
ATTENTIONS = ("causal", "bidirectional")
PROJECTIONS = (None, "trunk")
MAX_DIMS = 64


@dataclass(frozen=True)
class EncodingConfig:
    """What happens between a row's tokens and its feature.

    Attributes:
        positions: "family" for the positions that the family gives an image's tokens (M-RoPE in Qwen's), "plain" for
            0, 1, 2, ... on every axis, with which several embedders were trained.
        pooling: "last" for the state of the row's last token, "mean" for the mean over all its tokens.
        attention: "causal", or "bidirectional" with a padding mask.
        projection: "trunk" where the LLM itself ends in a projection to the features' width; None where features have
            the LLM's width.
        headless: the base may lack its language-model head; without one it can't generate.
        matryoshka_dims: widths to which its authors trained features to be cut; empty if none were.
    """

    positions: str = "family"
    pooling: str = "last"
    attention: str = "causal"
    projection: str | None = None
    headless: bool = False
    matryoshka_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        known = {"positions": POSITIONS, "pooling": POOLINGS, "attention": ATTENTIONS, "projection": PROJECTIONS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r:.80}, expected one of {', '.join(map(str, values))}"
                )
        dims = self.matryoshka_dims
        if len(dims) > MAX_DIMS or any(dim < 1 for dim in dims) or list(dims) != sorted(set(dims)):
            raise ValueError(
                f"matryoshka_dims is {list(dims)!s:.80}, expected at most {MAX_DIMS} widths in ascending order"
            )

    @property
    def is_causal(self) -> bool:
        """Whether no token sees what follows it."""
        return self.attention == "causal"

    @property
    def shares_beginnings(self) -> bool:
        """Whether rows may share the keys and values of a common beginning, and nothing else of it is needed."""
        return self.is_causal and self.pooling == "last"
