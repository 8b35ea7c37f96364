"""Bench: how fast is an implementation that has just been shown to compute the right thing? See README.md."""
