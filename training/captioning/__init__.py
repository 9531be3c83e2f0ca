"""`vladva-train caption`: fills missing short or long captions into new WebDataset shards."""

from vladva_training.captioning.command import caption_main

__all__ = ["caption_main"]
