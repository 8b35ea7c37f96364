"""Verify: do the implementations of a spec compute the same function? See README.md."""
