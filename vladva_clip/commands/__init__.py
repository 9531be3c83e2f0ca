"""The commands of `vladva`, one file each. A file imports torch only when its command runs, so that help is fast."""
