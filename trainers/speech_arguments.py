"""What a recipe can say about training on silent speech: recognition and synthesis.

Defaults are those of "TinyMyo", downstream 3: AdamW, a linear warm-up, and the learning rate halved whenever the
validation score has not improved for some evaluations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainers.arguments import TrainArguments
from trainers.errors import RecipeError
from trainers.speech_batches import PIECE_LENGTH, SAMPLES_PER_FRAME

UNSAID = 1
"""`per_device_train_batch_size` where nobody set it: batches are made by their samples."""


@dataclass
class SpeechArguments(TrainArguments):
    """What recognition and synthesis share."""

    packing: Literal["pieces", "utterances"] = field(
        default="pieces",
        metadata={
            "help": "pieces puts the utterances of a batch end to end and cuts them into pieces of one length (the "
            "paper); utterances pads whole ones, among which attention never passes."
        },
    )
    piece_length: int = field(default=PIECE_LENGTH, metadata={"help": "Samples of a piece, a multiple of 8."})
    max_samples: int = field(
        default=128_000, metadata={"help": "EMG samples in a training batch (of one process), all utterances together."}
    )
    max_shift: int = field(
        default=7,
        metadata={"help": "Training utterances begin a random 0 to so many samples later, and end with zeros."},
    )
    silent: Literal["use", "leave_out"] = field(
        default="use", metadata={"help": "Whether to learn from utterances that were mouthed silently."}
    )
    voiced: Literal["use", "leave_out"] = field(
        default="use", metadata={"help": "Whether to learn from utterances that were read aloud."}
    )
    plateau_patience: int = field(
        default=10,
        metadata={
            "help": "Evaluations without a better metric_for_best_model, after the warm-up, that are put up with: at "
            "the next one the learning rate is multiplied by plateau_factor. -1 never."
        },
    )
    plateau_factor: float = field(default=0.5, metadata={"help": "See plateau_patience."})

    layer_decay: float = field(default=1.0)
    early_stopping_patience: int = field(default=0)
    per_device_train_batch_size: int = field(default=UNSAID, metadata={"help": "Not used: see max_samples."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Whole utterances scored at a time."})
    num_train_epochs: float = field(default=200)
    lr_scheduler_type: str = field(default="constant_with_warmup")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=dict)
    adam_beta2: float = field(default=0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_device_train_batch_size != UNSAID or self.auto_find_batch_size:
            raise RecipeError(
                "per_device_train_batch_size: batches of utterances are made by their samples; set max_samples instead"
            )
        if self.piece_length < SAMPLES_PER_FRAME or self.piece_length % SAMPLES_PER_FRAME:
            raise RecipeError(f"piece_length={self.piece_length}: must be a multiple of {SAMPLES_PER_FRAME} samples")
        if not 0 <= self.max_shift < SAMPLES_PER_FRAME:
            raise RecipeError(f"max_shift={self.max_shift}: must be 0 to {SAMPLES_PER_FRAME - 1}, less than a frame")
        if self.silent == self.voiced == "leave_out":
            raise RecipeError("silent and voiced are both leave_out: nothing is left to learn from")
        self._check_schedule()
        if self.label_smoothing_factor:
            raise RecipeError("label_smoothing_factor: this task has no use for it; leave it out")

    def _check_schedule(self) -> None:
        if self.plateau_patience < -1 or not 0.0 < self.plateau_factor <= 1.0:
            raise RecipeError(
                f"plateau_patience={self.plateau_patience}, plateau_factor={self.plateau_factor}: patience must be -1 "
                "or more, the factor in (0, 1]"
            )
        if self.plateau_patience < 0:
            return
        if self.lr_drop_epochs or self.lr_scheduler_type != "constant_with_warmup" or self.lr_scheduler_kwargs:
            raise RecipeError(
                "plateau_patience decides when the learning rate falls: set it to -1 for another lr_scheduler_type or "
                "for lr_drop_epochs"
            )
        if self.eval_strategy == "no":
            raise RecipeError("plateau_patience counts evaluations: do not set eval_strategy to no, or set it to -1")


@dataclass
class RecognitionArguments(SpeechArguments):
    """Training a model that writes what was said: CTC over characters, scored by words."""

    TASK: ClassVar[str] = "speech_recognition"

    phone_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of a second loss in training, cross-entropy of the phone of each frame read aloud; needs a "
            "corpus with phones (audio: true). Not in the paper (0): CTC finds out by itself, in many more steps."
        },
    )
    beam_size: int = field(default=150, metadata={"help": "Beams of the word decoder on validation."})
    test_beam_size: int = field(default=1500, metadata={"help": "Beams of the word decoder on the test split."})
    lm_weight: float = field(default=2.0, metadata={"help": "Weight of the language model in the word decoder."})
    word_score: float = field(default=0.0, metadata={"help": "What the word decoder adds for each word."})
    lm_path: str | None = field(
        default=None,
        metadata={"help": "Language model (ARPA, or KenLM's binary); none makes one of the training texts."},
    )
    lexicon_path: str | None = field(
        default=None, metadata={"help": "Words to decode into, one a line; none takes those of the training texts."}
    )

    learning_rate: float = field(default=5e-4)
    weight_decay: float = field(default=0.0)
    warmup_steps: float = field(default=1000)
    metric_for_best_model: str | None = field(default="wer")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_scoring()
        if self.phone_weight < 0:
            raise RecipeError(f"phone_weight={self.phone_weight}: must not be negative; 0 leaves it out")
        if self.phone_weight and self.world_size > 1:
            raise RecipeError("phone_weight: the loss of phones is for a single process; set it to 0, or start one")

    def check_scoring(self) -> None:
        """Raise `RecipeError` for impossible options of the word decoder, which `tinymyo evaluate` sets afterwards."""
        for name in ("beam_size", "test_beam_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RecipeError(f"{name}={value!r}: must be a whole number, 1 or more")
        for name in ("lm_weight", "word_score"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise RecipeError(f"{name}={value!r}: must be a number")
        for name in ("lm_path", "lexicon_path"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise RecipeError(f"{name}={value!r}: must be the path of a file")


@dataclass
class SynthesisArguments(SpeechArguments):
    """Training a model that voices what was said: log-mel spectra, with phones as a second task."""

    TASK: ClassVar[str] = "speech_synthesis"

    silent_alignment: Literal["path", "frames"] = field(
        default="path",
        metadata={
            "help": "What the loss sums of silent utterances: path, every pair of frames on the alignment; frames, one "
            "predicted frame for each target frame (the released code)."
        },
    )
    target_features: Literal["log_mel", "mfcc"] = field(
        default="log_mel",
        metadata={
            "help": "What is predicted: log_mel, 80 bands, which vocoders need (the released code); mfcc, 26 cepstral "
            "coefficients (the paper), from which a smoother spectrum is made."
        },
    )
    target_scale: Literal["standardised", "raw"] = field(
        default="standardised",
        metadata={
            "help": "Unit of the distances in the loss: standardised, the standard deviation of all training targets "
            "about the mean of their band (the released code; the paper does not say); raw, that of the targets."
        },
    )
    vocoder: str | None = field(
        default=None, metadata={"help": "HiFi-GAN (folder or Hub id) that makes the WAV files; none is Griffin-Lim."}
    )
    asr_model: str | None = field(
        default=None,
        metadata={"help": "Speech recogniser (folder or Hub id) that scores the voiced test utterances by words."},
    )

    max_samples: int = field(
        default=256_000, metadata={"help": "EMG samples in a training batch (of one process), all utterances together."}
    )
    num_train_epochs: float = field(default=80)
    learning_rate: float = field(default=1e-3)
    weight_decay: float = field(default=1e-7)
    warmup_steps: float = field(default=500)
    plateau_patience: int = field(
        default=5, metadata={"help": "As for recognition; the paper's value for synthesis is the smaller one."}
    )
