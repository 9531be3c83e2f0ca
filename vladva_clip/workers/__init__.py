"""Processes that read ahead: how many, their signals, their shared memory, and waits that always end."""
