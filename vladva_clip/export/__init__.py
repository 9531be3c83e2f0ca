"""A merged checkpoint that transformers, sentence-transformers and vLLM load without this package (docs/export.md)."""
