"""What a hyper-parameter search may try: the mapping `search_space` of a recipe.

    search_space:
      learning_rate: {low: 1.0e-4, high: 2.0e-3, log: true}
      per_device_train_batch_size: {choices: [16, 32, 64]}
      model_config.hidden_dropout_prob: {low: 0.0, high: 0.4}

Any field of the model or of the training can be named, and with a point an entry of a field that is a mapping. The
windows stay as they are, so that every trial is scored on the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.errors import RecipeError

if TYPE_CHECKING:
    import optuna

# Tried where a recipe does not say: what the outcome of fine-tuning depends on most.
DEFAULT_SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"low": 1e-4, "high": 2e-3, "log": True},
    "weight_decay": {"low": 1e-3, "high": 3.0, "log": True},
    "layer_decay": {"low": 0.7, "high": 1.0},
    "model_config.hidden_dropout_prob": {"low": 0.0, "high": 0.4},
    "model_config.drop_path_rate": {"low": 0.0, "high": 0.3},
}


@dataclass(frozen=True)
class Parameter:
    """A field of the recipe and its values: from `low` to `high` (whole numbers if both are), or one of `choices`."""

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that a trial takes."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def bounds(self) -> tuple[Any, ...]:
        """Values that a recipe must accept for the search to make sense."""
        return self.choices or (self.low, self.high)


def read_space(space: Mapping[str, Any] | None) -> tuple[Parameter, ...]:
    """The parameters of a `search_space`, by default `DEFAULT_SPACE`.

    Raises:
        RecipeError: an entry that is no range and no list of choices; the message names it.
    """
    if space is not None and (not isinstance(space, Mapping) or not space):
        raise RecipeError(f"search_space must name fields and their ranges, got {space!r}")
    return tuple(_parameter(str(name), values) for name, values in (space or DEFAULT_SPACE).items())


def _parameter(name: str, values: Any) -> Parameter:
    where = f"search_space, {name}"
    kinds = "write {low: ..., high: ...}, with log: true for a logarithmic scale, or {choices: [...]}"
    if not isinstance(values, Mapping) or values.keys() not in ({"choices"}, {"low", "high"}, {"low", "high", "log"}):
        raise RecipeError(f"{where}: {kinds}; not {values!r}")
    if "choices" in values:
        choices = values["choices"]
        if not isinstance(choices, list) or not choices or not all(_plain(choice) for choice in choices):
            raise RecipeError(f"{where}: choices must be a list of numbers, words or switches, not {choices!r}")
        return Parameter(name, choices=tuple(choices))
    low, high, log = _number(values["low"]), _number(values["high"]), values.get("log", False)
    if low is None or high is None or not isinstance(log, bool):
        raise RecipeError(f"{where}: {kinds}; not {dict(values)!r}")
    if low >= high:
        raise RecipeError(f"{where}: low ({low}) must be below high ({high})")
    if log and low <= 0:
        raise RecipeError(f"{where}: a logarithmic scale needs low above 0, got {low}")
    return Parameter(name, low, high, log)


def _number(value: Any) -> float | int | None:
    """A number, also one that YAML takes for text because it has no point: 1e-4. None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
