"""All that makes and measures vladva-tiny."""
