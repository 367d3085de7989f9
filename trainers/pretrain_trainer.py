"""The `Trainer` of masked reconstruction: one loss whatever the number of processes and micro-batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, TrainerCallback

from tinymyo_hf.tinymyo.modeling_tinymyo import patch_log_rms
from trainers.optim import LayerwiseTrainer
from trainers.probe import LinearProbe
from trainers.window_mix import WindowMix

BY_CORPUS = ("loss", "explained", "strength_explained")  # scores that are also given for each corpus
_BOOKKEEPING = ("position", "source")  # entries of a batch that the model does not take


class PretrainingTrainer(LayerwiseTrainer):
    """Trains `TinyMyoForPreTraining` on a `WindowMix`.

    The loss is the mean over all masked tokens of an update, plus `visible_loss_weight` times that over all visible
    ones: micro-batches and processes count by their real tokens, as if they were one batch.

    Args:
        corpora: names of the sources of the validation mix, for its scores.
        train_corpora: names of the sources of the training mix, for messages.
        probe: scored at every evaluation.
    """

    def __init__(
        self,
        *args: Any,
        corpora: Sequence[str],
        train_corpora: Sequence[str],
        probe: LinearProbe | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, compute_metrics=self._scores, layer_decay=1.0, **kwargs)
        self.corpora = list(corpora)
        self.train_corpora = list(train_corpora)
        self.probe = probe
        self.loss_is_scaled_for_ga = True
        self.visible_loss_weight = self.model.config.visible_loss_weight
        self.patch_size = self.model.config.patch_size
        self.add_callback(_LogWhenSaving())

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """The micro-batches of an update, and its (masked, visible) tokens in all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.stack([self._token_counts(batch) for batch in batches]).sum(dim=0).to(device)
        return batches, self.accelerator.reduce(counts, "sum")

    def _token_counts(self, batch: dict[str, Any]) -> torch.Tensor:
        masked = batch["bool_masked_pos"].sum()
        if "channel_mask" in batch:
            real = batch["channel_mask"].sum() * (batch["input_values"].shape[-1] // self.patch_size)
        else:
            real = torch.tensor(batch["bool_masked_pos"].numel(), device=masked.device)
        return torch.stack([masked, real - masked]).float()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """This micro-batch's part of the update's loss, times the processes (whose gradients are averaged)."""
        outputs = model(**_model_inputs(inputs))
        here = self._token_counts(inputs)
        totals = here if num_items_in_batch is None else num_items_in_batch
        masked, visible = (here / totals.clamp(min=1)).unbind()
        loss = masked * outputs["masked_loss"] + self.visible_loss_weight * visible * outputs["visible_loss"]
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """The `window_sums` of a batch, and the source of each window."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**_model_inputs(inputs))
        return None, window_sums(inputs, outputs, self.patch_size), inputs["source"]

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        """As the library's, with the probe's scores."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.probe is not None:
            scores = self.probe.score(self.model, self.args.device)
            output.metrics.update({f"eval_{name}": value for name, value in scores.items()})
        return output

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Any:
        """The model's output for a batch of the validation mix."""
        self.model.eval()
        return self.model(**_model_inputs(self._prepare_inputs(batch)))

    def _scores(self, prediction: EvalPrediction) -> dict[str, float]:
        sums, sources = np.asarray(prediction.predictions, np.float64), np.asarray(prediction.label_ids)
        scores = self._means(sums.sum(axis=0))
        for source, name in enumerate(self.corpora):
            if len(self.corpora) > 1 and (sources == source).any():
                means = self._means(sums[sources == source].sum(axis=0))
                scores |= {f"{name}_{key}": means[key] for key in BY_CORPUS if key in means}
        return scores

    def _means(self, sums: np.ndarray) -> dict[str, float]:
        masked, masked_tokens, visible, visible_tokens, squared, power, strength, spread = sums
        masked_loss, visible_loss = masked / max(masked_tokens, 1), visible / max(visible_tokens, 1)
        means = {
            "loss": float(masked_loss + self.visible_loss_weight * visible_loss),
            "masked_loss": float(masked_loss),
            "visible_loss": float(visible_loss),
            "explained": float(1 - squared / max(power, 1e-12)),
        }
        if self.model.config.power_loss_weight:
            means["strength_explained"] = float(1 - strength / max(spread, 1e-12))
        return means

    def describe_batch(self, inputs: dict[str, Any]) -> str:
        """The corpora of a batch, how often each, and the recordings of windows that are not finite."""
        mix: WindowMix = self.train_dataset
        names = Counter(self.train_corpora[source] for source in inputs["source"].tolist())
        parts = ", ".join(f"{count} windows of {name}" for name, count in sorted(names.items()))
        finite = inputs["input_values"].isfinite().flatten(1).all(dim=1).tolist()
        places = [mix.place(position) for position in inputs["position"].tolist()]
        wrong = [place for place, fine in zip(places, finite, strict=True) if not fine]
        chosen = wrong or places
        found = sorted({f"{self.train_corpora[s]} {mix.recording(s, index)}" for s, index in chosen[:8]})
        return f"{parts}; {'not finite' if wrong else 'from'}: {', '.join(found)}{', ...' if len(chosen) > 8 else ''}"


def window_sums(inputs: dict[str, torch.Tensor], outputs: Any, patch_size: int) -> torch.Tensor:
    """Errors of each window of a batch.

    Args:
        inputs: `input_values` (batch, channels, time), `bool_masked_pos` and perhaps `channel_mask`.
        outputs: `token_loss` (batch, tokens), `reconstruction` (batch, tokens, patch_size) and, if predicted, `log_rms`
            (batch, tokens).

    Returns:
        float32 (batch, 8): summed loss and number of masked tokens, the same of visible tokens, and, of what is masked,
        the squared error of the samples and their squared deviation from the channel's mean, the squared error of the
        log RMS (0 where it is not predicted) and its squared deviation from the window's mean.
    """
    values = inputs["input_values"].float()
    patches = values.unflatten(-1, (-1, patch_size)).flatten(1, 2)
    masked = inputs["bool_masked_pos"]
    real = torch.ones_like(masked)
    if "channel_mask" in inputs:
        real = inputs["channel_mask"].repeat_interleave(patches.shape[1] // values.shape[1], dim=1)
    visible = real & ~masked
    loss, log_rms = outputs["token_loss"], patch_log_rms(patches)
    squared = (outputs["reconstruction"].float() - patches).square().sum(dim=-1)
    centred = (values - values.mean(dim=-1, keepdim=True)).unflatten(-1, (-1, patch_size)).flatten(1, 2)
    predicted = outputs["log_rms"].float() if outputs.get("log_rms") is not None else log_rms
    mean = (log_rms * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)
    columns = (
        loss * masked, masked, loss * visible, visible, squared * masked, centred.square().sum(dim=-1) * masked,
        (predicted - log_rms).square() * masked, (log_rms - mean).square() * masked,
    )  # fmt: skip
    return torch.stack([column.float().sum(dim=1) for column in columns], dim=1)


def _model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in _BOOKKEEPING}


class _LogWhenSaving(TrainerCallback):
    """A checkpoint starts a new average of the logged loss, so that a resumed run logs what one without a stop does."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end
