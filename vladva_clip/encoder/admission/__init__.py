"""What of a base's files is read: JSON, tokenizer and chat templates of strangers, admitted key by key."""
