"""Where a model's files lie, and what they state: an adapter, an export, a bare LVLM or a published embedder."""

import functools
from dataclasses import dataclass
from pathlib import Path

from vladva_clip.sources.profiles import Profile
from vladva_clip.storage import adapter_files
from vladva_clip.storage.base import CONFIG, BaseFiles
from vladva_clip.storage.config import VladvaConfig

CONFIG_FILE = adapter_files.CONFIG
EXPORT_FILE = "vladva_export.json"  # of a plain LVLM whose vocabulary holds the prompts (docs/export.md)
BASE_FILE = "vladva_base.json"  # of a bare LVLM with templates of its own, such as the one it was pre-trained with


@dataclass(frozen=True)
class Source:
    """A local directory with an adapter (`vladva_config.json`) or a bare LVLM (`config.json`).

    Pass the same Source on to read its files once. base_id and revision name it inside other checkpoints; image_size
    and dtype are the registry's for this model. profile: of a published embedder, and the tag under which it is read.
    lora: where its files lie, if the embedder is a LoRA; the directory is then the LVLM's under it.
    """

    directory: Path
    base_id: str
    revision: str | None = None
    image_size: int | None = None  # pixels
    dtype: str | None = None
    profile: Profile | None = None
    tag: str | None = None
    lora: Path | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the directory holds an adapter rather than an LVLM, with or without a config of ours beside it."""
        if not (self.directory / CONFIG_FILE).is_file():
            return False
        has_soft_prompt = (self.directory / adapter_files.SOFT_PROMPT).is_file()
        return has_soft_prompt or not (self.directory / CONFIG).is_file()

    @property
    def is_export(self) -> bool:
        """Whether the directory holds an LVLM with the prompts folded into its vocabulary."""
        return not self.is_adapter and (self.directory / EXPORT_FILE).is_file()

    @functools.cached_property
    def files(self) -> BaseFiles:
        """The directory, opened as a base: each file is read once, whoever asks."""
        return BaseFiles(self.directory, self.profile and self.profile.admission, self.lora)

    @property
    def has_weights(self) -> bool:
        """Whether there are weight files in the directory, complete or not."""
        return any(self.directory.glob("*.safetensors"))

    @property
    def stated_in(self) -> str:
        """Where its config is stated, for errors."""
        if self.profile and not self.is_adapter:
            return f"the profile {self.profile.name}"
        return str(self.directory / (self.config_file or CONFIG))

    @property
    def config_file(self) -> str | None:
        """The name of the file that states the config of an adapter, an export or a base; None where there is none."""
        found = [name for name in (CONFIG_FILE, EXPORT_FILE, BASE_FILE) if (self.directory / name).is_file()]
        return found[0] if found else None

    @functools.cached_property
    def stated(self) -> VladvaConfig | None:
        """The config that an adapter, an export, a base or its profile states; None for a bare LVLM without one.

        Raises:
            ValueError: as `adapter_files.read_config`; of the others, what `BaseFiles.json` and `VladvaConfig` refuse.
        """
        if self.is_adapter:
            return adapter_files.read_config(self.directory)
        if self.profile:
            return self.profile.config_of(self.tag)
        name = self.config_file
        return VladvaConfig.from_dict(self.files.json(name)) if name else None
