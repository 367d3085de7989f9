"""What was typed, or said, and when."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from tinymyo_hf.characters import check_charset
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.base import Chunk, EmgTask, RecordingInput, refuse_windows
from tinymyo_hf.tasks.speech_text import SpeechText
from tinymyo_hf.tasks.typing_text import TypingText

FAMILIES = {"semg_transformer": TypingText, "tinymyo": SpeechText}
"""By the type of the model's config: how recordings become input, and logits text."""


class TextTask(EmgTask):
    """From logits (1, frames, vocabulary) of whole recordings to what `pipeline("emg-to-text")` returns."""

    head = "ForCTC"
    chunks_at_once = 1

    def check(self) -> None:
        """Whether model, preprocessing and vocabulary belong together."""
        check_charset(self.vocabulary, self.model_config)
        _ = self.family  # of speech: whether model and preprocessing do

    def check_batch_size(self, batch_size: int | None) -> None:
        """See `EmgTask`; recordings of typing run one by one."""
        if batch_size not in (None, 1) and not self.family.takes_batches:
            raise SignalError(f"batch_size={batch_size}: recordings run one by one, whole; leave it out")

    @cached_property
    def family(self) -> TypingText | SpeechText:
        """How recordings of this kind of model are read."""
        return FAMILIES[self.model_config.model_type](self)

    def split_settings(
        self,
        decoder: str | None = None,
        lm_path: str | None = None,
        lexicon_path: str | None = None,
        beam_size: int | None = None,
        lm_weight: float | None = None,
        insertion_bonus: float | None = None,
        word_score: float | None = None,
        max_labels_per_step: int | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `EmgTask`; what each decoder takes, `EmgToTextPipeline` says."""
        given = {
            "decoder": decoder,
            "lm_path": lm_path,
            "lexicon_path": lexicon_path,
            "beam_size": beam_size,
            "lm_weight": lm_weight,
            "insertion_bonus": insertion_bonus,
            "word_score": word_score,
            "max_labels_per_step": max_labels_per_step,
        }
        refuse_windows(settings)
        reading, making = super().split_settings(**settings)
        return reading, making | {name: value for name, value in given.items() if value is not None}

    def chunks(self, inputs: RecordingInput, **settings: Any) -> Iterator[Chunk]:
        """See `EmgTask`; the whole recording is one."""
        yield self.family.read(inputs, **settings)

    def result(self, outputs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """The text, decoded as `options` say."""
        (output,) = outputs
        return self.family.text(output, **options)

    def num_channels(self) -> int:
        """See `EmgTask`."""
        return self.family.num_channels

    def recording_rate(self) -> float:
        """See `EmgTask`."""
        return self.family.recording_rate
