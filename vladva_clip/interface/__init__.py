"""The user interface: checks of arguments, devices and precisions, missing extras, terminal output."""
