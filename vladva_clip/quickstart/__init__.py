"""The package in two minutes: a gallery of drawn scenes, a model's answers about it, a table and a contact sheet."""
