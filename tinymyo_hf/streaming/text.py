"""From a running signal to text: the sEMG transformers and a CTC decoder."""

from collections.abc import Callable

import numpy as np
import torch

from tinymyo_hf.decoding_timed import TimedDecoder, TimedId
from tinymyo_hf.semg_transformer.feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.semg_transformer.streaming import SEMGTransformerStream, WindowedStream
from tinymyo_hf.streaming.chunks import Event, StreamError
from tinymyo_hf.tokenization import EmgCharacterTokenizer, apply_keystrokes, check_charset

MODES = ("exact", "windowed")


class TextRecognizer:
    """Keys that are pressed.

    Events: {"type": "key", "time": s of the last sample that the frame of the key sees, "key": its character, with "⌫"
    for backspace, "⏎" for enter and "⇧" for shift}. A key that has been reported is never taken back.

    Args:
        model: a CTC model in evaluation mode.
        extractor: of the same checkpoint.
        tokenizer: of the same checkpoint.
        make_decoder: from `tinymyo_hf.decoding_timed.timed_decoder`.
        mode: "exact", the logits of one forward pass over all of the signal; needs a model whose input norm can run
            along. "windowed": a forward pass over the last window every hop. None: exact where that is possible.
        hop: samples between windows, for the latter; 400 by default.
        window: samples of these windows.

    Raises:
        StreamError: another mode, one in which the model cannot run, or a hop for the exact one.
        CharsetError: the tokenizer is for another character set.
    """

    def __init__(
        self,
        model: SEMGTransformerForCTC,
        extractor: SEMGTransformerFeatureExtractor,
        tokenizer: EmgCharacterTokenizer,
        make_decoder: Callable[[], TimedDecoder],
        mode: str | None = None,
        hop: int | None = None,
        window: int = 8000,
    ):
        check_charset(tokenizer, model.config)
        if mode is None:
            mode = "windowed" if model.config.input_norm == "window" else "exact"
        if mode not in MODES:
            raise StreamError(f"mode={mode!r}: unknown; use one of {', '.join(MODES)}")
        if mode == "exact" and hop is not None:
            raise StreamError(f"hop={hop}: in the mode exact every frame is computed once, as it comes; leave it out")
        self._extractor, self._tokenizer, self._make_decoder = extractor, tokenizer, make_decoder
        hop = 400 if hop is None else hop
        try:
            self._stream = SEMGTransformerStream(model) if mode == "exact" else WindowedStream(model, window, hop)
        except ValueError as error:
            raise StreamError(f"mode={mode}: {error}") from error
        self._config = model.config
        self.num_channels = extractor.num_channels
        self.sampling_rate = float(extractor.sampling_rate)
        lag = self._stream.delay * self._config.hop_length + self._config.receptive_field + self._config.hop_length - 2
        self.delay = lag / self.sampling_rate
        self.notes = self._notes(mode, window)
        self._keys: list[str] = []
        self._begin(0)

    def push(self, samples: np.ndarray) -> list[Event]:
        """See `Recognizer`."""
        prepared = self._extractor.preprocess(samples, self.sampling_rate, "signal")
        return self._decode(self._stream.push(torch.from_numpy(np.ascontiguousarray(prepared))[None]))

    def finish(self) -> list[Event]:
        """Keys in the frames that waited for later ones, and those that the decoder had not settled."""
        events = self._decode(self._stream.finish())
        return events + self._events(self._decoder.finish())

    def reset(self, position: int, forget: bool) -> None:
        """See `Recognizer`; `keystrokes` goes on."""
        self._stream.reset(forget)
        self._begin(position)

    @property
    def keystrokes(self) -> str:
        """All keys of the session so far, as in the events."""
        return "".join(self._keys)

    @property
    def text(self) -> str:
        """What is on the screen after these keys, with "\\n" for enter."""
        return apply_keystrokes(self.keystrokes)

    def _begin(self, position: int) -> None:
        self._start = position
        self._decoder = self._make_decoder()

    def _decode(self, logits: torch.Tensor) -> list[Event]:
        """(1, frames, vocabulary)."""
        return self._events(self._decoder.push(logits[0].float().cpu().numpy()))

    def _events(self, ids: list[TimedId]) -> list[Event]:
        events = []
        for i, frame in ids:
            last = self._start + frame * self._config.hop_length + self._config.receptive_field - 1
            key = self._tokenizer.decode([i])
            self._keys.append(key)
            events.append({"type": "key", "time": last / self.sampling_rate, "key": key})
        return events

    def _notes(self, mode: str, window: int) -> list[str]:
        if mode == "windowed":
            return [
                f"every window of {window / self.sampling_rate:g} s is computed for itself: input norm and context are "
                "those of the window, not of the whole recording"
            ]
        if self._config.attention_window is None:
            return ["every frame attends to all earlier ones: computing and memory per frame grow with the session"]
        return []
