"""What a recipe can say about distillation, beside what it says about the training of the student.

    task: distillation
    student_task: classification
    teacher_name_or_path: runs/large

The defaults are those of "Scaling and Distilling Transformer Models for sEMG", section 3.2.2 and Table 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from trainers.arguments import ClassificationArguments
from trainers.ctc_arguments import OTHER_SIZES, CTCArguments
from trainers.errors import RecipeError

LEARNING_RATES: dict[tuple[int, int], float] = {
    (512, 2): 3e-3,
    (512, 10): 3e-4,
    **{(1024, layers): 3e-4 for layers in (6, 8, 10)},
}
"""(hidden size, layers) of a student that writes text -> rate, as the paper chose it on validation (Table 8), where it
is not 1e-3."""


@dataclass
class DistillationFields:
    """What distillation adds to the arguments of the student's task."""

    TASK: ClassVar[str] = "distillation"
    STUDENT_TASK: ClassVar[str] = ""
    """Value of the field `student_task` in recipes of this kind."""

    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "The trained model to learn from, of the same task (folder or Hub id)."}
    )
    temperature: float = field(
        default=2.0, metadata={"help": "What the logits of teacher and student are divided by, for the soft targets."}
    )
    alpha: float = field(default=0.5, metadata={"help": "Weight of the teacher in the loss."})
    beta: float = field(default=1.0, metadata={"help": "Weight of the labels in the loss."})
    teacher_logits: Literal["online", "cached"] = field(
        default="online",
        metadata={
            "help": "online asks the teacher at every step; cached asks it once, for training windows that are the "
            "same in every epoch."
        },
    )

    @classmethod
    def kind(cls) -> dict[str, str]:
        """The fields of a recipe that choose these arguments."""
        return {"task": cls.TASK, "student_task": cls.STUDENT_TASK}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise RecipeError(f"temperature={self.temperature}: must be positive; 2 is usual")
        if not (self.alpha > 0 and self.beta >= 0):
            raise RecipeError(
                f"alpha={self.alpha}, beta={self.beta}: the weight of the teacher must be positive, that of the labels "
                "not negative; to train without a teacher use the student's task"
            )
        teacher = self.teacher_name_or_path
        if teacher is not None and Path(teacher).resolve() == Path(self.output_dir).resolve():
            raise RecipeError(f"teacher_name_or_path and output_dir are both {teacher}: name another folder for output")
        if self.teacher_logits == "cached" and self.augmentations:
            raise RecipeError(
                f"teacher_logits: cached needs training windows that are the same in every epoch, which augmentations "
                f"({', '.join(self.augmentations)}) change: remove them, or ask the teacher online"
            )


@dataclass
class ClassificationDistillationArguments(DistillationFields, ClassificationArguments):
    """Training a classifier on the labels and on what a larger one makes of the same windows."""

    STUDENT_TASK: ClassVar[str] = "classification"


@dataclass
class CTCDistillationArguments(DistillationFields, CTCArguments):
    """Training a model that writes text on the text and on what a larger one makes of the same frames."""

    STUDENT_TASK: ClassVar[str] = "ctc"

    weight_decay: float = field(default=0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_logits == "cached" and self.jitter:
            raise RecipeError(
                "teacher_logits: cached needs training windows that are the same in every epoch: add `jitter: false`, "
                "or ask the teacher online"
            )


def student_learning_rate(hidden_size: int, num_hidden_layers: int) -> float:
    """The learning rate of distillation for a student of this size that writes text."""
    return LEARNING_RATES.get((hidden_size, num_hidden_layers), OTHER_SIZES)
