"""What a recipe can say about personalising a typing model, and the learning rates of the paper for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from trainers.ctc_arguments import CTCArguments


def personal_learning_rate(hidden_size: int) -> float:
    """The paper's rate for a model of this width (Table 10): 3e-4 for TINY and SMALL, 1e-4 for two of three LARGE (the
    third had 3e-5); 3e-4 for widths below LARGE's that it does not give."""
    return 1e-4 if hidden_size >= 1024 else 3e-4


@dataclass
class CTCPersonalizationArguments(CTCArguments):
    """Training a generic typing model further on one user at a time (appendix A.4 and Table 9)."""

    TASK: ClassVar[str] = "ctc_personalization"

    users: list[str] = field(
        default_factory=list,
        metadata={"help": "Who: user0 to user7 of emg2qwerty, or subjects of the corpus."},
    )
    from_scratch: bool = field(
        default=False, metadata={"help": "Also train the same network from random weights on each user's recordings."}
    )

    learning_rate: float | None = field(
        default=None, metadata={"help": "None: the paper's for this width of model, from scratch that of task ctc."}
    )
    num_train_epochs: float = field(default=100)
    weight_decay: float = field(default=0.0)
