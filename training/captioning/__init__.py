"""`vladva-train caption`: writes missing short or long captions into new WebDataset shards."""
