"""Features of many pictures and texts in one file, ranked by a query and drawn as a contact sheet."""
