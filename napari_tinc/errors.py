"""The errors napari-tinc raises on purpose.

Every text says what was expected, what was got and what to do about it, in one line: the command line and the
widgets show it as it is.
"""


class TincError(Exception):
    """Anything napari-tinc refuses to do, with a text meant for the user."""


class InputError(TincError, ValueError):
    """The volume, a file or a setting given by the user cannot be used."""


class FormatError(TincError, ValueError):
    """The bytes are not a valid ``.tinc`` frame."""


class TruncatedError(FormatError):
    """What is at hand of a ``.tinc`` frame ends too early."""


class BudgetError(TincError, ValueError):
    """The byte budget, or the quality asked for, cannot be met."""


class TrainingError(TincError, RuntimeError):
    """Training failed: it collapsed, overflowed or ran out of memory, and the remedies did not help."""
