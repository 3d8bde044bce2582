"""Why there is nothing to read of what is asked for."""


class NoAverageError(LookupError):
    """The symbol has no average."""
