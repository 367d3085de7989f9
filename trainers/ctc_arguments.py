"""What a recipe can say about training with CTC, and the learning rates of the paper by size of the model.

The defaults are those of "Scaling and Distilling Transformer Models for sEMG" (sections 3.2, 3.3, appendix A): AdamW,
linear warm-up over 5 % of the steps, then cosine to zero, 200 epochs in batches of 640, weight decay 0.2, gradients
clipped at 0.1, windows of 4 s with 900 ms of past and 100 ms of future context, bands turned by up to one electrode.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainers.arguments import TrainArguments
from trainers.errors import RecipeError

LEARNING_RATES: dict[tuple[int, int], float] = {
    **{(128, layers): 1e-3 for layers in (2, 4, 6, 8, 10)},
    **{(256, layers): 1e-3 for layers in (2, 4, 6, 8)},
    **{(256, 10): 3e-4},
    **{(512, 2): 1e-3, (1024, 2): 1e-3},
    **{(hidden_size, layers): 3e-4 for hidden_size in (512, 1024) for layers in (4, 6, 8, 10)},
}
"""(hidden size, layers) -> rate, as the paper chose it for each size on validation."""

OTHER_SIZES = 1e-3
"""Rate of the small published sizes, for sizes that were not published."""


def paper_learning_rate(hidden_size: int, num_hidden_layers: int) -> float:
    """The learning rate for a model of this size."""
    return LEARNING_RATES.get((hidden_size, num_hidden_layers), OTHER_SIZES)


@dataclass
class CTCArguments(TrainArguments):
    """Training a model that writes text (keystrokes): the loss is CTC, the score the character error rate."""

    TASK: ClassVar[str] = "ctc"

    context: list[int] = field(
        default_factory=lambda: [1800, 200],
        metadata={"help": "Samples before and after each window that the model sees too."},
    )
    loss_span: Literal["all", "window"] = field(
        default="all",
        metadata={
            "help": "Frames that must spell the text of a window: all, context included (the paper does not say; the "
            "model then learns to pass over the context), or those of the window itself."
        },
    )
    alignment_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of a second loss, which says when each key was pressed. Not in the paper (0): CTC finds "
            "that out by itself, in many more steps."
        },
    )
    jitter: bool = field(default=True, metadata={"help": "Cut training windows at other places in every epoch."})
    session_chunk: int = field(
        default=20_000, metadata={"help": "Samples of a session that are worked on at a time when it is scored."}
    )

    learning_rate: float | None = field(
        default=None, metadata={"help": "None: the paper's for this size of model, 1e-3 for other sizes."}
    )
    augmentations: dict | str | None = field(
        # each band by -1, 0 or 1 electrodes, each as likely
        default_factory=lambda: {"electrode_rotation": {"max_shift": 1, "probability": 2 / 3, "rings": 2}},
        metadata={"help": "Train-time transforms by name, in order (see trainers/augmentation.py)."},
    )
    layer_decay: float = field(default=1.0)
    early_stopping_patience: int = field(default=0)

    per_device_train_batch_size: int = field(default=64)
    gradient_accumulation_steps: int = field(default=10)
    per_device_eval_batch_size: int = field(default=32)
    num_train_epochs: float = field(default=200)
    warmup_steps: float = field(default=0.05)
    lr_scheduler_type: str = field(default="cosine")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=dict)
    weight_decay: float = field(default=0.2)
    adam_beta2: float = field(default=0.999)
    max_grad_norm: float = field(default=0.1)
    metric_for_best_model: str | None = field(default="cer")
    train_sampling_strategy: str = field(default="group_by_length")

    def __post_init__(self) -> None:
        if len(self.context) != 2 or min(self.context) < 0:
            raise RecipeError(f"context={self.context}: give the samples before and after a window, not negative")
        if self.alignment_weight < 0:
            raise RecipeError(f"alignment_weight={self.alignment_weight}: must not be negative; 0 leaves it out")
        if self.session_chunk < 1:
            raise RecipeError(f"session_chunk={self.session_chunk}: must be a positive number of samples")
        super().__post_init__()
        if self.label_smoothing_factor:
            raise RecipeError("label_smoothing_factor: CTC has no use for it; leave it out")
        if self.train_sampling_strategy not in ("random", "sequential", "group_by_length"):
            raise RecipeError(
                f"train_sampling_strategy={self.train_sampling_strategy}: use random, sequential or group_by_length"
            )
