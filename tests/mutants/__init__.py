"""Planted faults: mutate an implementation's source, run verify on it, and see that it is caught. `python -m tests.mutants --help`."""
