"""The processes of a run: their signals, their memory, and the errors that end them early."""
