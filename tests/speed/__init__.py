"""The speed of the implementations themselves: each against bare code, written in the same framework by hand: `python -m tests.speed`."""
