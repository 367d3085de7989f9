"""Streaming of models that need a whole window: the last one is computed again every hop."""

import torch

from .modeling_semg_transformer import SEMGTransformerForCTC
from .streaming_checks import check_mode, check_running, checked_samples


class WindowedStream:
    """Logits of a running signal by a forward pass over its last `window` samples every `hop` samples.

    For models that cannot be streamed exactly, as the published ones: the input norm is that of each window, and a
    frame's logits are those of the first window in which `look_ahead` frames follow it. The first windows are shorter.

    Args:
        model: in evaluation mode.
        window, hop: samples; multiples of the model's hop (20).
        look_ahead: frames that follow a frame in the window that decides it; by default those that the positional
            convolution sees (63 of the published one). Fewer shorten the delay; zeros stand in for the others.
        batch_size: signals that run in step.

    Attributes:
        delay: frames that a frame's logits come late, at most: `look_ahead + hop / 20 - 1`.

    Raises:
        ValueError: the model is in training mode, or lengths that do not fit each other.
    """

    def __init__(
        self,
        model: SEMGTransformerForCTC,
        window: int = 8000,
        hop: int = 400,
        look_ahead: int | None = None,
        batch_size: int = 1,
    ):
        config = model.config
        future = model.base_model.encoder.pos_conv_embed.conv.padding[1]
        self.look_ahead = future if look_ahead is None else look_ahead
        hop_frames = hop // config.hop_length
        if hop < 1 or hop % config.hop_length or window % config.hop_length or self.look_ahead < 0:
            raise ValueError(
                f"window={window} and hop={hop} must be positive multiples of {config.hop_length} samples, look_ahead="
                f"{self.look_ahead} not negative."
            )
        if config.num_frames(window) < self.look_ahead + hop_frames:
            raise ValueError(
                f"a window of {window} samples has {config.num_frames(window)} frames, fewer than the {hop_frames} of "
                f"a hop and the {self.look_ahead} that follow them: take a longer window, a shorter hop or fewer "
                "look_ahead frames."
            )
        self.model, self.window, self.hop, self.batch_size = model, window, hop, batch_size
        self.delay = self.look_ahead + hop_frames - 1
        self.reset()

    def reset(self, forget: bool = True) -> None:
        """Begin anew; `forget` makes no difference: every window has its own input norm."""
        check_mode(self.model)
        like = self.model.base_model.input_norm.weight
        self._kept = like.new_empty(self.batch_size, self.model.config.num_channels, 0)
        self._samples = self._emitted = 0
        self._finished = False

    @torch.inference_mode()
    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """As `SEMGTransformerStream.push`; frames come every `hop` samples."""
        check_mode(self.model)
        check_running(self._finished)
        samples = checked_samples(self.model, samples, self.batch_size, self._samples)
        logits, done = [self._nothing()], 0
        while done < samples.shape[-1]:
            count = min(self.hop - self._samples % self.hop, samples.shape[-1] - done)
            self._take(samples[..., done : done + count])
            done += count
            if self._samples % self.hop == 0:
                logits.append(self._evaluate(self.look_ahead))
        return torch.cat(logits, dim=1)

    @torch.inference_mode()
    def finish(self) -> torch.Tensor:
        """No more samples come: logits of all frames that are left, from the last window."""
        check_running(self._finished)
        self._finished = True
        return self._evaluate(0)

    def _take(self, samples: torch.Tensor) -> None:
        self._samples += samples.shape[-1]
        self._kept = torch.cat([self._kept, samples], dim=-1)[..., -self.window - self.hop :]

    def _evaluate(self, look_ahead: int) -> torch.Tensor:
        """Logits of the frames of the last window that have not been given and are followed by `look_ahead` others."""
        config = self.model.config
        stop = config.num_frames(self._samples) - look_ahead
        if stop <= self._emitted:
            return self._nothing()
        first = max(-((self.window - self._samples) // config.hop_length), 0)  # frame at which the window starts
        samples = self._kept[..., self._kept.shape[-1] - (self._samples - config.hop_length * first) :]
        logits = self.model(input_values=samples).logits[:, self._emitted - first : stop - first]
        self._emitted = stop
        return logits

    def _nothing(self) -> torch.Tensor:
        return self._kept.new_empty(self.batch_size, 0, self.model.config.vocab_size)


__all__ = ["WindowedStream"]
