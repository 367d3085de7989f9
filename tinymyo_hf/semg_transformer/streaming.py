"""An sEMG transformer as a stream: samples in, logits out, as from one forward pass over the whole recording.

Batches are (batch, channels, time) raw samples, logits (batch, frames, vocab_size); frame i of a recording sees its
samples 20 i to 20 i + 40. What has to be kept between two pushes follows from the model: samples that are not yet a
frame, the surroundings of the positional convolution, keys and values of earlier frames.
"""

import numpy as np
import torch

from .modeling_semg_transformer import SEMGTransformerForCTC
from .streaming_checks import check_mode, check_running, checked_samples
from .streaming_state import Block, Featurizer, FrozenNorm, Past, Positions, RunningNorm
from .windowed_streaming import WindowedStream

# Longer pushes are processed in such pieces: memory is bounded, and the pieces fit into a processor's cache.
MOST_FRAMES = 256
CHUNK = 20 * MOST_FRAMES  # samples

Statistics = tuple[torch.Tensor, torch.Tensor]


class SEMGTransformerStream:
    """Logits of a running signal, equal to those of one forward pass over all of it, however it is cut into pieces.

    With `attention_window` time per frame and memory stay the same for ever; without it both grow with the stream.
    A change of the model's weights, type or place counts from the next `reset`.

    Args:
        model: in evaluation mode. A model whose input norm needs the whole window needs `statistics`.
        batch_size: signals that run in step.
        statistics: mean and variance of the outputs of the first convolution, (conv_dim[0],) or (batch_size,
            conv_dim[0]), to normalise with in place of the model's own; those of a whole session from
            `session_statistics`.

    Attributes:
        delay: frames that the logits lag behind the frames that are complete: 0 with a causal positional convolution,
            else its look-ahead, 63 of the published one.

    Raises:
        ValueError: the model is in training mode or needs statistics, or these have another shape.

    Example:
        >>> stream = SEMGTransformerStream(model)                      # doctest: +SKIP
        >>> for samples in source:                                     # (1, 32, any number)
        ...     logits = stream.push(samples)                          # (1, frames, 99)
        >>> logits = stream.finish()                                   # the last `stream.delay` frames
    """

    def __init__(self, model: SEMGTransformerForCTC, batch_size: int = 1, statistics: Statistics | None = None):
        if model.config.input_norm == "window" and statistics is None:
            raise ValueError(
                'this model has input_norm="window": no frame is known before the window ends. Either give '
                "`statistics`, mean and variance of a session (session_statistics, or session_logits for all of it in "
                'bounded memory), or train it with input_norm="frozen" or "running", or recompute the last window '
                "every hop with WindowedStream."
            )
        if any(
            layer.conv.stride[0] > layer.conv.kernel_size[0] for layer in model.base_model.feature_extractor.conv_layers
        ):
            raise ValueError("a convolution with a stride above its kernel skips samples and cannot be streamed.")
        self.model, self.batch_size = model, batch_size
        self._statistics = None if statistics is None else _checked_statistics(model, batch_size, statistics)
        self._norm: FrozenNorm | RunningNorm | None = None
        self.reset()

    @property
    def delay(self) -> int:
        return self._positions.delay

    @torch.inference_mode()
    def reset(self, forget: bool = True) -> None:
        """Begin anew, after a gap in the signal or with another recording: the next sample is the first.

        Args:
            forget: whether a running input norm forgets the signal so far; not after a gap in the same recording.
        """
        check_mode(self.model)
        base = self.model.base_model
        if forget or not isinstance(self._norm, RunningNorm):
            self._norm = self._fresh_norm()
        like = base.input_norm.weight
        samples = like.new_empty(self.batch_size, self.model.config.num_channels, 0)
        self._featurizer = Featurizer(base.feature_extractor, self._norm, samples)
        self._positions = Positions(base.encoder.pos_conv_embed, self.batch_size)
        self._past = Past(
            base.encoder.layers, self.batch_size, self.model.config.attention_window, MOST_FRAMES, samples
        )
        self._blocks = [Block(layer, index, self._past) for index, layer in enumerate(base.encoder.layers)]
        self._samples, self._finished = 0, False

    @torch.inference_mode()
    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """The next samples (batch, channels, any number, also 0) -> logits (batch, new frames, vocab_size).

        Raises:
            ValueError: another shape, samples that are not finite, model in training mode, or after `finish`. The
                stream is as before the call and can go on.
        """
        check_mode(self.model)
        check_running(self._finished)
        samples = checked_samples(self.model, samples, self.batch_size, self._samples)
        self._samples += samples.shape[-1]
        pieces = samples.split(MOST_FRAMES * self.model.config.hop_length, dim=-1)
        logits = [self._logits(self._positions.push(self._frames(piece))) for piece in pieces]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    @torch.inference_mode()
    def finish(self) -> torch.Tensor:
        """No more samples come: logits (batch, frames, vocab_size) of the frames that waited for later ones."""
        check_running(self._finished)
        self._finished = True
        return self._logits(self._positions.flush())

    def reserve(self, frames: int) -> None:
        """Take the memory for a recording of so many frames at once, where all earlier frames are attended to."""
        self._past.reserve(frames)

    def _fresh_norm(self) -> FrozenNorm | RunningNorm:
        norm = self.model.base_model.input_norm
        if self._statistics is not None:
            return FrozenNorm(norm, *self._statistics)
        if norm.mode == "frozen":
            return FrozenNorm(norm, norm.running_mean, norm.running_var)
        return RunningNorm(norm, self.batch_size)

    def _frames(self, samples: torch.Tensor) -> torch.Tensor:
        """(batch, channels, time) -> (batch, frames, hidden)."""
        return self.model.base_model.feature_projection(self._featurizer.push(samples).transpose(1, 2))

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, frames with positions, hidden) -> (batch, frames, vocab_size)."""
        encoder, frames = self.model.base_model.encoder, states.shape[1]
        if frames == 0:
            return states.new_empty(self.batch_size, 0, self.model.config.vocab_size)
        norm_first = self.model.config.do_stable_layer_norm
        if not norm_first:
            states = encoder.layer_norm(states)
        mask = self._past.begin(frames)
        for block in self._blocks:
            states = block.push(states, mask)
        self._past.end(frames)
        return self.model.lm_head(encoder.layer_norm(states) if norm_first else states)


@torch.inference_mode()
def session_statistics(
    model: SEMGTransformerForCTC, samples: torch.Tensor | np.ndarray, chunk: int = CHUNK
) -> Statistics:
    """Mean and variance (batch, conv_dim[0]), float64, of the outputs of the first convolution over whole recordings.

    Args:
        model: whose convolution it is.
        samples: (batch, channels, time) raw; also an array on disk, of which `chunk` samples are read at a time.

    Raises:
        ValueError: recordings shorter than that convolution, a wrong shape, samples that are not finite.
    """
    layer = model.base_model.feature_extractor.conv_layers[0]
    kept = layer.conv.weight.new_empty(len(samples), layer.conv.in_channels, 0)
    count, mean, deviations = 0, 0.0, 0.0
    for first in range(0, samples.shape[-1], chunk):
        piece = checked_samples(model, samples[..., first : first + chunk], len(samples), first)
        piece = torch.cat([kept, piece], dim=-1)
        frames = max(layer.output_length(piece.shape[-1]), 0)
        kept = piece[..., frames * layer.conv.stride[0] :]
        if frames == 0:
            continue
        states = layer.conv(piece).double()
        # Two parts' means and squared deviations make those of both, without cancellation.
        difference = states.mean(-1) - mean
        deviations = deviations + frames * states.var(-1, correction=0)
        deviations = deviations + count * frames / (count + frames) * difference.square()
        count += frames
        mean = mean + frames / count * difference
    if count == 0:
        raise ValueError(f"{samples.shape[-1]} samples are too few for the first convolution: give longer recordings.")
    return mean, deviations / count


@torch.inference_mode()
def session_logits(
    model: SEMGTransformerForCTC, samples: torch.Tensor | np.ndarray, chunk: int = CHUNK
) -> torch.Tensor:
    """Logits (batch, frames, vocab_size) of whole recordings, those of one forward pass, piece by piece.

    A model with `input_norm="window"` goes over the recordings twice, first for the statistics of its norm. Memory is
    for a piece, the logits, and keys and values of the frames that are attended to: of all, without `attention_window`.

    Args:
        model: in evaluation mode.
        samples: (batch, channels, time) raw, without padding; also an array on disk.
        chunk: samples that are read at a time.

    Raises:
        ValueError: as `SEMGTransformerStream`, or recordings shorter than a frame.
    """
    config, time = model.config, samples.shape[-1]
    if time < config.receptive_field:
        raise ValueError(f"{time} samples are fewer than one frame sees ({config.receptive_field}): give more.")
    statistics = session_statistics(model, samples, chunk) if config.input_norm == "window" else None
    stream = SEMGTransformerStream(model, len(samples), statistics)
    stream.reserve(config.num_frames(time))
    pieces = (samples[..., first : first + chunk] for first in range(0, time, chunk))
    return torch.cat([*(stream.push(piece) for piece in pieces), stream.finish()], dim=1)


def _checked_statistics(model: SEMGTransformerForCTC, batch_size: int, statistics: Statistics) -> Statistics:
    channels = model.config.conv_dim[0]
    for name, values in zip(("mean", "variance"), statistics, strict=True):
        if tuple(values.shape) not in ((channels,), (batch_size, channels)) or not values.isfinite().all():
            raise ValueError(
                f"statistics: the {name} must be finite, of shape ({channels},) or ({batch_size}, {channels}), got "
                f"{tuple(values.shape)}."
            )
    if (statistics[1] < 0).any():
        raise ValueError("statistics: the variance must not be negative.")
    return statistics


__all__ = ["SEMGTransformerStream", "WindowedStream", "session_logits", "session_statistics"]
