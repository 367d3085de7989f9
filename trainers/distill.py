"""Distillation: a student learns from the labels and from what a trained teacher makes of the same windows.

    model, data, arguments = parse_recipe("synthetic_distilled", ["--teacher_name_or_path", "runs/synthetic"])
    results = run(model, data, arguments)

The student is trained, scored and reported as its own task says; a teacher is any model of that task whose outputs mean
the same: same labels, same preprocessing and, frame by frame, the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.arguments import DataArguments, ModelArguments
from trainers.classification import ClassificationTask
from trainers.ctc import CTCTask
from trainers.ctc_models import plain_model, semg_config
from trainers.ctc_trainer import frame_places
from trainers.distill_arguments import CTCDistillationArguments, DistillationFields, student_learning_rate
from trainers.errors import CheckpointError, RecipeError
from trainers.finetune import run as finetune
from trainers.models import load_trained, parameter_counts
from trainers.report import format_score
from trainers.tasks import Scores, Task
from trainers.teacher_logits import FrameLengths, OnlineTeacher, StoredTeacher, store_logits


def run(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    arguments: DistillationFields,
    command: str | None = None,
) -> dict[str, Any]:
    """`trainers.finetune.run` of the student's task with a teacher; the teacher's scores stand in the table.

    Raises:
        RecipeError, CheckpointError, DataError: the run cannot start as described; nothing was trained.
    """
    return finetune(model_arguments, data_arguments, arguments, command, TASKS[arguments.STUDENT_TASK])


def soft_target_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of the student's probabilities against the teacher's: the mean of -sum_k q_k log p_k, in nats.

    q = softmax(teacher_logits / temperature), p = softmax(logits / temperature). "Scaling and Distilling Transformer
    Models for sEMG" (section 3.2.2, Table 7) says: cross-entropy, soft targets at each time step, temperature 2 "when
    computing the probabilities". It does not say

    - whether the student's logits are divided by the temperature too: they are here, as in Hinton et al. (2015);
    - whether the loss is multiplied by temperature^2, which keeps its gradient from shrinking as 1 / temperature^2
      (Hinton et al.): it is not, the paper's formula has no such factor; a larger `alpha` has the same effect;
    - how time steps are averaged, and over which: each frame that counts, of all windows of the batch, counts the same.

    The Kullback-Leibler divergence has the same gradient; it differs by the entropy of the teacher.

    Args:
        logits, teacher_logits: (batch, outputs) or (batch, frames, outputs).
        mask: (batch, frames), the frames that count; None: everything does.
    """
    targets = torch.softmax(teacher_logits / temperature, dim=-1)
    entropy = -(targets * torch.log_softmax(logits / temperature, dim=-1)).sum(-1)
    return entropy.mean() if mask is None else (entropy * mask).sum() / mask.sum()


@dataclass(frozen=True)
class DistillationLoss:
    """The `guide` of a `LayerwiseTrainer`: (alpha * teacher + beta * labels) / (alpha + beta).

    The formula, alpha = 0.5 (from a search between 0.1 and 1) and beta = 1 are the paper's (section 3.2.2, Table 7).

    Attributes:
        teacher: a batch -> its logits, without gradient.
        frame_places: a batch -> the first frame that counts and the one after the last, (batch, 2); None for outputs
            without frames.
    """

    teacher: Callable[[Mapping[str, Any]], torch.Tensor]
    temperature: float
    alpha: float
    beta: float
    frame_places: Callable[[Mapping[str, Any]], torch.Tensor] | None = None

    def __call__(self, loss: torch.Tensor, outputs: Any, inputs: dict[str, Any], share: float) -> torch.Tensor:
        logits = outputs["logits"].float()
        mask = None
        if self.frame_places is not None:
            frames, places = torch.arange(logits.shape[1], device=logits.device), self.frame_places(inputs)
            mask = (frames >= places[:, :1]) & (frames < places[:, 1:])
        soft = soft_target_loss(logits, self.teacher(inputs), self.temperature, mask)
        return (self.alpha * share * soft + self.beta * loss) / (self.alpha + self.beta)


class Distillation(Task):
    """What a teacher adds to the task of a student; classes derive from this and then from that task.

    Attributes:
        teacher: the trained model, its outputs in the order of the student's labels.
    """

    teacher: PreTrainedModel
    _arguments: DistillationFields
    _stored: StoredTeacher | None = None

    @classmethod
    def load(cls, data: DataArguments, arguments: DistillationFields) -> Distillation:
        """As the student's task, and the teacher, which must fit it.

        Raises:
            RecipeError: no teacher is named.
            CheckpointError: the teacher is missing, was trained for another task, or its outputs or inputs are others.
        """
        if arguments.teacher_name_or_path is None:
            raise RecipeError(
                "distillation needs a trained teacher: add `teacher_name_or_path: FOLDER`, the output_dir of an "
                "earlier training of the same task"
            )
        task = super().load(data, arguments)
        task._arguments = arguments
        task.teacher, extractor = load_trained(arguments.teacher_name_or_path, cls.model_class)
        task.adopt(arguments.teacher_name_or_path, task.teacher, extractor)
        return task

    def check_student(self, model: nn.Module) -> None:
        """Raise `CheckpointError` if the student's outputs cannot be compared with the teacher's."""

    @property
    def frame_lengths(self) -> FrameLengths | None:
        """A batch -> the frames of each window that are not padding, (batch,); None for outputs without frames."""
        return None

    @property
    def frame_places(self) -> Callable[[Mapping[str, Any]], torch.Tensor] | None:
        """See `DistillationLoss`."""
        return None

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        model = super().build_model(arguments)
        self.check_student(model)
        return model

    def guide(self, arguments: DistillationFields) -> DistillationLoss:
        teacher = self._stored_teacher() if arguments.teacher_logits == "cached" else self._online_teacher()
        return DistillationLoss(
            teacher, arguments.temperature, arguments.alpha, arguments.beta, frame_places=self.frame_places
        )

    def _online_teacher(self) -> OnlineTeacher:
        halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = next((dtype for name, dtype in halves.items() if getattr(self._arguments, name)), None)
        return OnlineTeacher(self.teacher, dtype)

    def _stored_teacher(self) -> StoredTeacher:
        if self._stored is None:
            arguments = self._arguments
            with arguments.main_process_first(desc="asking the teacher"):
                parts = store_logits(
                    self._online_teacher(),
                    self.splits["train"],
                    self.collate,
                    Path(arguments.output_dir) / "teacher_logits",
                    arguments.per_device_eval_batch_size,
                    self.frame_lengths,
                    arguments.device,
                    progress=not arguments.disable_tqdm,
                )
            self._stored = StoredTeacher(parts, by_frame=self.frame_lengths is not None)
        return self._stored

    def references(self, arguments: DistillationFields) -> dict[str, Scores]:
        """The teacher, scored as the student will be."""
        scores = self.score_model(self.teacher, arguments)
        if arguments.process_index == 0:
            shown = ", ".join(f"{c.title} {format_score(c, scores[c.key])}" for c in self.columns[:2])
            print(f"teacher: {self.test_split} {shown}", flush=True)
        return {"teacher": scores}

    def facts(self) -> dict[str, Any]:
        arguments = self._arguments
        teacher = {
            "checkpoint": arguments.teacher_name_or_path,
            "parameters": parameter_counts(self.teacher)["total"],
            **{name: getattr(arguments, name) for name in ("temperature", "alpha", "beta", "teacher_logits")},
        }
        return {**super().facts(), "teacher": teacher}

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        parts, teacher = super().card(results), results["teacher"]
        times = teacher["parameters"] / results["parameters"]["total"]
        name, weights = teacher["checkpoint"], f"{teacher['alpha']:g} and {teacher['beta']:g}"
        temperature = f"{teacher['temperature']:g}"
        return parts | {
            "model": f"{parts['model']} Distilled from the teacher `{name}`, which has {teacher['parameters']:,} "
            f"parameters ({times:.1f} times as many).",
            "scores": f"{parts['scores']} The teacher was scored in the same way.",
            "details": f"""{parts["details"]}

### Distillation

The loss of training is the mean, with weights {weights}, of the cross-entropy against the teacher's probabilities at
temperature {temperature} and of the loss of the labels; the validation loss is that of the labels alone.""",
            "limits": f"{parts['limits']} On whom the teacher was trained is not known here: if it has seen people of "
            "the test split, the student has learned of them too. Whether the licence of the teacher holds for weights "
            "trained on its outputs is for you to find out.",
        }


class DistilledClassification(Distillation, ClassificationTask):
    """A classifier that learns from another one; each may have any size and patches of any length."""

    def adopt(self, checkpoint: str, model: PreTrainedModel, extractor: TinyMyoFeatureExtractor) -> None:
        extractor.patch_size = self.extractor.patch_size  # a model's own affair: windows are the same
        super().adopt(checkpoint, model, extractor)


class DistilledCTC(Distillation, CTCTask):
    """A model that writes text and learns, frame by frame, from another one.

    What the teacher may see of a recording is its own affair: one that looks ahead, or normalises whole windows, can
    teach a student that is streamed. The length of the windows a teacher was trained on is not stored with it, and not
    compared. It teaches the frames that `loss_span` says the text is about; others it may never have been trained on.
    """

    @classmethod
    def complete(cls, model: ModelArguments, arguments: CTCDistillationArguments) -> None:
        config = semg_config(model)
        if arguments.learning_rate is None:
            arguments.learning_rate = student_learning_rate(config.hidden_size, config.num_hidden_layers)

    @property
    def frame_lengths(self) -> FrameLengths:
        encoder = self.teacher.semg_transformer.feature_extractor
        return lambda inputs: encoder.frame_lengths(inputs["attention_mask"].sum(1))

    @property
    def frame_places(self) -> Callable[[Mapping[str, Any]], torch.Tensor]:
        return lambda inputs: frame_places(self.teacher, inputs, inputs["attention_mask"].device)

    def check_student(self, model: nn.Module) -> None:
        ours, theirs = plain_model(model).config, self.teacher.config
        for field, meaning in (("hop_length", "samples from frame to frame"), ("receptive_field", "samples per frame")):
            if getattr(ours, field) != getattr(theirs, field):
                raise CheckpointError(
                    f"{self._arguments.teacher_name_or_path} has {getattr(theirs, field)} {meaning}, the student "
                    f"{getattr(ours, field)}: their frames cannot be compared; give the student the teacher's "
                    "conv_kernel and conv_stride"
                )


TASKS: dict[str, type[Distillation]] = {"classification": DistilledClassification, "ctc": DistilledCTC}
