"""Features of any number of pictures and texts, in part files that survive interruptions, joined at the end."""
