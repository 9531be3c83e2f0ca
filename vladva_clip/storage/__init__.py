"""What lies on disk: files read and written whole, checked before they are believed, and what they mean."""
