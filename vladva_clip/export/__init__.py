"""Export a merged model for transformers, sentence-transformers and vLLM, without this package (docs/export.md)."""
