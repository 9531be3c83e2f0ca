"""How the authors of EmbeddingGemma 2 compute a feature, written from their model card; nothing of ours is used.

The stock processor and class, with audio; the mean over all tokens that the attention mask keeps, normalized.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from tests.support.published.gemma_repository import PROMPTS, WRITTEN

Inputs = dict[str, torch.Tensor]


class GemmaAuthors:
    """The repository's weights and processor, used as its authors do.

    Args:
        directory: the repository's files.
        budget: the most visual tokens of a picture; 280 is the processor's own.
    """

    def __init__(self, directory: Path, budget: int = 280) -> None:
        self.processor = AutoProcessor.from_pretrained(directory)
        self.budget = budget
        self.model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval().requires_grad_(False)

    def text_inputs(self, captions: Sequence[str], tag: str = "default") -> Inputs:
        """Return what the processor makes of captions behind a task's prompt."""
        texts = [f"{WRITTEN[PROMPTS[tag]]}{caption}" for caption in captions]
        return dict(self.processor(text=texts, padding=True, return_tensors="pt"))

    def image_inputs(self, pictures: Sequence[Image.Image]) -> Inputs:
        """Return what the processor makes of pictures, each a row of its own."""
        rows = [[one] for one in pictures]
        return dict(self.processor(images=rows, return_tensors="pt", max_soft_tokens=self.budget))

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return the normalized features `(B, D)` of rows."""
        known = {name: tensor for name, tensor in inputs.items() if name != "num_soft_tokens_per_image"}
        states, mask = self.model(**known).last_hidden_state, inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    def ids(self, inputs: Inputs) -> list[list[int]]:
        """Return the ids of each row without padding."""
        rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        return [ids[mask.bool()].tolist() for ids, mask in rows]

    def ids_of_texts(self, captions: Sequence[str], tag: str = "default") -> list[list[int]]:
        """Return the ids of many captions' rows, without padding them."""
        return self.processor.tokenizer([f"{WRITTEN[PROMPTS[tag]]}{caption}" for caption in captions]).input_ids
