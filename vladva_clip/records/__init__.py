"""Collections of pictures with captions: folders of shards, tables and lines as sequences of records."""
