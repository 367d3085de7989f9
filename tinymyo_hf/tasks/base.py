"""What the tasks share: forms of input, reading and checking recordings, settings."""

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from tinymyo_hf.recordings import read_recording
from tinymyo_hf.signal import SignalError

RecordingInput = str | Path | ArrayLike | dict[str, Any]
"""A recording: (channels, time), the path of a file, or {"raw": either of them, "sampling_rate": Hz}."""

Chunk = dict[str, Any]
"""Of a recording, what one call of the model takes: "input_values" float32 (1, channels, time), "is_last", and what
`EmgTask.result` needs to know of it. Calls may take several chunks of one length together."""


class EmgTask:
    """From recordings to chunks for a model, and from its outputs to a result, for a class that runs the model.

    That class has, beyond what it does itself,
    - `model_config`: of the model, a configuration of the library or a namespace with its fields;
    - `preprocessing`: how the model wants recordings, `TinyMyoPreprocessing` or `SEMGTransformerPreprocessing`;
    - `vocabulary`: of text, a tokenizer or a `CharacterVocabulary`;
    - `source`: where the model comes from, a path or a Hub id; "" if it is not known;
    - `find_file(name)`: the path of another file of the checkpoint, None if it has none;
    - `device`: where networks beside the model run.

    A task names the `head` of its models, and how many chunks go through the model together by default.
    """

    head: ClassVar[str]
    chunks_at_once: ClassVar[int] = 32

    def check(self) -> None:
        """Whether model and preprocessing belong together.

        Raises:
            SignalError, CharsetError: they do not.
        """

    def check_batch_size(self, batch_size: int | None) -> None:
        """Raise `SignalError` if so many chunks cannot go through the model together; None is the default."""

    def prepare(self, **settings: Any) -> None:
        """Load what `result` needs with these settings, so that a wrong path is told before the work."""

    def split_settings(
        self,
        sampling_rate: float | None = None,
        on_rate_mismatch: str | None = None,
        read_options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a call, those that are not None, for `chunks` and for `result`.

        Raises:
            SignalError: values that cannot be.
            TypeError: settings that the task does not have.
        """
        given = {"sampling_rate": sampling_rate, "on_rate_mismatch": on_rate_mismatch, "read_options": read_options}
        return {name: value for name, value in given.items() if value is not None}, {}

    @abstractmethod
    def chunks(self, inputs: RecordingInput, **settings: Any) -> Iterator[Chunk]:
        """The chunks of a recording in order of time, the last of them with "is_last" true.

        Raises:
            SignalError: recordings that cannot be read or do not suit the model.
        """

    @abstractmethod
    def result(self, outputs: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
        """What the pipeline returns for a recording.

        Args:
            outputs: of its chunks, each with the model's outputs as NumPy arrays (1, ...) in place of "input_values".
        """

    @abstractmethod
    def num_channels(self) -> int | None:
        """The channels that the model takes; None for any number."""

    @abstractmethod
    def recording_rate(self) -> float:
        """Hz at which the model takes recordings."""

    def read(
        self, inputs: RecordingInput, sampling_rate: float | None, read_options: dict[str, Any] | None = None
    ) -> tuple[ArrayLike, float, str]:
        """(channels, time), its rate in Hz, and a name for messages.

        Raises:
            SignalError: it cannot be read, its rate is not known, or it has other channels than the model.
        """
        name = "recording"
        if isinstance(inputs, dict):
            unknown = sorted(inputs.keys() - {"raw", "sampling_rate"})
            if "raw" not in inputs or unknown:
                raise SignalError(f"{name}: a dictionary has the keys raw and sampling_rate, not {sorted(inputs)}")
            sampling_rate = inputs.get("sampling_rate", sampling_rate)
            inputs = inputs["raw"]
        channels = self.num_channels()
        if isinstance(inputs, (str, Path)):
            name = str(inputs)
            options = {"sampling_rate": sampling_rate, "num_channels": channels, **(read_options or {})}
            recording = read_recording(inputs, **options)
            inputs, sampling_rate = recording.signal, recording.sampling_rate
        if sampling_rate is None:
            raise SignalError(
                f"{name}: its sampling rate is not known; pass sampling_rate (in Hz; the model was trained at "
                f"{self.recording_rate():g} Hz)"
            )
        shape = np.shape(inputs)
        if channels is not None and len(shape) == 2 and shape[0] != channels:
            hint = "transpose it" if shape[1] == channels else "select the channels the model was trained on"
            raise SignalError(
                f"{name}: {shape[0]} channels, but the model takes {channels}; the array must be (channels, time): "
                f"{hint}"
            )
        return inputs, sampling_rate, name


def refuse_windows(settings: dict[str, Any]) -> None:
    """Raise `SignalError` for settings of windows, where recordings run whole."""
    if of_windows := sorted({"window_length", "stride"} & settings.keys()):
        raise SignalError(f"{', '.join(of_windows)}: recordings run whole, not in windows; leave it out")


def several_or_one(inputs: Any) -> Any:
    """A list of recordings where `inputs` are several in one of their forms, and otherwise what was given."""
    if isinstance(inputs, tuple) or (hasattr(inputs, "__array__") and np.ndim(inputs) == 3):
        inputs = list(inputs)
    if isinstance(inputs, list) and inputs and _is_nested_list(inputs):
        inputs = np.asarray(inputs)
    return inputs


def _is_nested_list(inputs: list) -> bool:
    """Whether a list is one recording, a list of channels, and not a list of recordings."""
    if hasattr(inputs[0], "__array__"):
        return np.ndim(inputs[0]) == 1
    return isinstance(inputs[0], (list, tuple)) and len(inputs[0]) > 0 and np.ndim(inputs[0][0]) == 0
