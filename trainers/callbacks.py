"""What a user sees while a model trains: one bar over the steps and one line per evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from trainers.report import Column, format_score


class _StepBar(ProgressCallback):
    """The library's bar over the training steps, without its raw log lines and its bars within the bar."""

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        if self.training_bar is None:
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        pass


class EvaluationLines(TrainerCallback):
    """Prints `epoch 3/50  loss 0.71  validation loss 0.66  accuracy 84.20  macro f1 83.91  (best)`."""

    SHOWN = 2  # scores

    def __init__(self, metric: str, columns: Sequence[Column] = ()):
        self.metric = f"eval_{metric.removeprefix('eval_')}"
        self.columns = columns
        self.loss: float | None = None

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs):
        if logs and "loss" in logs:
            self.loss = logs["loss"]

    def on_evaluate(self, args, state, control, metrics: dict[str, Any], **kwargs):
        if not state.is_world_process_zero:
            return
        score, best = metrics.get(self.metric), state.best_metric
        improves = best is None or score is None or (score > best if args.greater_is_better else score < best)
        parts = [f"epoch {state.epoch:g}/{args.num_train_epochs:g}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        parts.append(f"validation loss {metrics['eval_loss']:.4f}")
        shown = [column for column in self.columns if metrics.get(f"eval_{column.key}") is not None]
        parts += [f"{c.title} {format_score(c, metrics[f'eval_{c.key}'])}" for c in shown[: self.SHOWN]]
        # Without a metric to select by, the library keeps no best score to compare with.
        tqdm.write("  ".join(parts) + ("  (best)" if improves and args.metric_for_best_model else ""))


def use_readable_progress(trainer: Trainer, columns: Sequence[Column] = ()) -> None:
    """Replace the library's bar and raw dictionaries by `EvaluationLines`, with the bar unless it is disabled.

    Args:
        columns: the scores to show, as far as an evaluation has them.
    """
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EvaluationLines(trainer.args.metric_for_best_model or "loss", columns))
    if not trainer.args.disable_tqdm:
        trainer.add_callback(_StepBar())
