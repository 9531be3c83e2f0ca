"""The processes of a run, the signals and memory they get, and what ends them early."""
