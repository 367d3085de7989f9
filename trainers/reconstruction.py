"""What masked reconstruction has learned, in pictures: the signal, what was hidden of it, what the model put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from trainers.report import save_figure

CHANNELS_SHOWN = 4
_TRUTH, _MASKED, _MODEL = "#555555", "#E69F00", "#0072B2"


def plot_reconstructions(
    batch: Mapping[str, torch.Tensor],
    outputs: Mapping[str, torch.Tensor],
    patch_size: int,
    sampling_rate: float,
    titles: Sequence[str],
    path: str | Path,
) -> None:
    """PNG with a column per window and a row per channel; the hidden patches are shaded.

    Args:
        batch: `input_values` (windows, channels, time), `bool_masked_pos` and perhaps `channel_mask`.
        outputs: `reconstruction` (windows, tokens, patch_size) and perhaps `log_rms` (windows, tokens) of the model.
        titles: one per window.
    """
    signal = batch["input_values"].float().cpu().numpy()
    windows, channels, time = signal.shape
    model = outputs["reconstruction"].float().cpu().numpy().reshape(windows, channels, time)
    strength = outputs.get("log_rms")
    if strength is not None:
        strength = strength.float().exp().cpu().numpy().reshape(windows, channels, -1).repeat(patch_size, axis=-1)
    hidden = batch["bool_masked_pos"].cpu().numpy().reshape(windows, channels, -1)
    real = batch["channel_mask"].sum(dim=1).tolist() if "channel_mask" in batch else [channels] * windows
    rows = min(CHANNELS_SHOWN, *real)
    seconds = np.arange(time) / sampling_rate
    figure, grid = plt.subplots(
        rows, windows, figsize=(5.2 * windows, 1.5 * rows + 0.9), sharex=True, squeeze=False, layout="constrained"
    )
    for window in range(windows):
        chosen = np.linspace(0, real[window] - 1, rows).round().astype(int)
        for row, channel in enumerate(chosen):
            axes = grid[row, window]
            for patch in np.flatnonzero(hidden[window, channel]):
                edge = patch * patch_size / sampling_rate
                axes.axvspan(edge, edge + patch_size / sampling_rate, color=_MASKED, alpha=0.25, linewidth=0)
            axes.plot(seconds, signal[window, channel], color=_TRUTH, linewidth=0.8, label="recorded")
            where = np.repeat(hidden[window, channel], patch_size)
            shown = np.where(where, model[window, channel], np.nan)
            axes.plot(seconds, shown, color=_MODEL, linewidth=1.1, label="reconstructed where hidden (shaded)")
            if strength is not None:
                rms = strength[window, channel]
                axes.fill_between(
                    seconds, -rms, rms, where, color=_MODEL, alpha=0.2, linewidth=0, label="predicted RMS"
                )
            axes.set_ylabel(f"channel {channel + 1}", fontsize="small")
            axes.tick_params(labelsize="small")
        grid[0, window].set_title(titles[window], fontsize="medium")
        grid[-1, window].set_xlabel("Seconds")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)
