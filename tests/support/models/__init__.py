"""Tiny models of several kinds, written as the directories that are loaded."""
