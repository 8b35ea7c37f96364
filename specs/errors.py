"""The error that a spec's user can meet."""


class SpecError(ValueError):
    """A spec that cannot be used. The message says where, what was expected, what was given, and the likely mend."""
