"""How a name finds its directory: names and tags, `hf-hub:`, `local-dir:`, and the only downloads."""
