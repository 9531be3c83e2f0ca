"""`vladva-train caption`: fills missing short or long captions into new WebDataset shards."""
