"""A package, so that `tests.support` is found here and not in a `tests` that some distribution installs."""
