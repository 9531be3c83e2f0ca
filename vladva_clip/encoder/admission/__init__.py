"""Decide what is read of a base's files: JSON, tokenizers and chat templates by strangers, admitted key by key."""
