"""The model that a command was asked to use, and its loading."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from vladva_clip.commands import output

if TYPE_CHECKING:
    from vladva_clip import VladvaCLIP, VladvaTokenizer

SCENES_ONLY = (
    "note: no --model was given, so this is vladva-tiny, which knows drawn scenes only; for photographs: "
    "--model qwen3-vl-embedding-2b, or another of `vladva models`"
)


class Loaded(NamedTuple):
    """A model with its image transform and tokenizer."""

    model: "VladvaCLIP"
    preprocess: Any
    tokenizer: "VladvaTokenizer"


@dataclass(frozen=True)
class Asked:
    """What the options say about the model.

    is_default: none was named, so the command's default is used. truncate_dim: how many dimensions of its features are
    kept, None for all.
    """

    name: str | None
    pretrained: str | None = None
    profile: str | None = None
    precision: str | None = None
    device: str = "auto"
    is_default: bool = False
    truncate_dim: int | None = None

    def load(self) -> Loaded:
        """Load model, transform and tokenizer, and say so if nobody chose the model.

        Raises:
            ValueError: as `create_model`.
        """
        if self.is_default and self.name == "vladva-tiny":
            output.note(SCENES_ONLY)
        from vladva_clip.factory import create_model, get_tokenizer

        options = {"profile": self.profile} if self.profile else {}
        cut = {"truncate_dim": self.truncate_dim} if self.truncate_dim else {}
        model, preprocess = create_model(self.name, self.pretrained, self.precision, self.device, **options, **cut)
        return Loaded(model, preprocess, get_tokenizer(self.name, **options))
