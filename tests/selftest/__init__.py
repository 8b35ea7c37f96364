"""Is a slowdown found, and is nothing found where there is none? With real work planted in a real step, through the real command.

`python -m tests.selftest gate` and `python -m tests.selftest planted`; both need minutes of a quiet machine.
"""
