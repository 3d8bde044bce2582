"""Why there is nothing to read of what is asked for."""

from datetime import date


class NoAverageError(LookupError):
    """The symbol has no average."""


class UnknownPriceError(LookupError):
    """There is no price of this id."""


class UnknownRawAnswerError(LookupError):
    """There is no raw answer of this id, and was none as far as can be told."""


class RawAnswerGoneError(LookupError):
    """Raw answers of the id's time are no longer kept; `oldest` is the first day that is."""

    def __init__(self, oldest: date) -> None:
        super().__init__(oldest)
        self.oldest = oldest
