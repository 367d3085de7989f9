"""Errors of training and evaluation; each message names the file or field at fault and the fix."""


class RecipeError(ValueError):
    """A recipe or an override that cannot be used."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable, of another shape, or made for other data."""


class EvaluationError(ValueError):
    """Predictions that cannot be scored."""


class DivergenceError(ValueError):
    """A loss or a gradient that is not a finite number: training cannot go on."""
