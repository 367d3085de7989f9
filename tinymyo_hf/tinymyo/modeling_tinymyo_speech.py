"""TinyMyo for speech from EMG of face and neck: text by CTC, or spectra for a vocoder.

Shapes: `input_values` (batch, channels, time) -> one output per frame, `config.num_frames(time)` of them: 8 samples
each with the published stem (689.0625 Hz in, 86.13 frames/s out).
Source: "TinyMyo: a Tiny Foundation Model for Flexible EMG Signal Processing at the Edge", downstream 3.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_tinymyo import TinyMyoConfig
from .modeling_tinymyo import TinyMyoModel, TinyMyoPreTrainedModel


@dataclass
class TinyMyoForSpeechSynthesisOutput(ModelOutput):
    """
    loss: scalar, mean over frames.
    spectrogram: (batch, frames, num_mel_bins), natural logarithm of mel energies (or what the model was trained on).
    phoneme_logits: (batch, frames, num_phonemes).
    """

    loss: torch.Tensor | None = None
    spectrogram: torch.Tensor | None = None
    phoneme_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def require_frames(model: nn.Module, config: TinyMyoConfig) -> None:
    """Raises:
    ValueError: the encoder has patches of single channels, not frames.
    """
    if config.stem == "patches":
        raise ValueError(
            f'{type(model).__name__} works on frames, but config.stem is "patches". Start from a preset '
            '"tinymyo-gaddy-...", or load a pretrained encoder with stem="residual".'
        )


class TinyMyoForCTC(TinyMyoPreTrainedModel):
    """The probability of every character, or of none, for each frame; connectionist temporal classification."""

    # The loss is a mean over its own batch: the Trainer is to average it over accumulation steps and processes.
    accepts_loss_kwargs = False

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        require_frames(self, config)
        self.tinymyo = TinyMyoModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutput:
        """
        Args:
            input_values: (batch, channels, time), as the feature extractor makes it.
            attention_mask: (batch, time), 1 for real samples, 0 for the padding behind a shorter utterance.
            channel_mask: (batch, channels), 1 for real channels and 0 for padding.
            labels: (batch, longest text) token ids, padded with -100.

        Returns:
            `logits` (batch, frames, vocab_size), those of frames beyond an utterance meaningless, and with labels the
            CTC `loss`.

        Raises:
            ValueError: shapes that do not fit, or labels that are no characters.
        """
        outputs = self.tinymyo(input_values, attention_mask=attention_mask, channel_mask=channel_mask, **kwargs)
        logits = self.lm_head(outputs.last_hidden_state)

        loss = None
        if labels is not None:
            mask = self.tinymyo.stem.frame_mask(attention_mask)
            lengths = logits.new_full(logits.shape[:1], logits.shape[1], dtype=torch.long)
            loss = ctc_loss(self.config, logits, lengths if mask is None else mask.sum(1), labels)
        return CausalLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def ctc_loss(config: TinyMyoConfig, logits: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """CTC of logits (batch, frames, vocab), the first `lengths` (batch,) frames of each, and labels (batch, longest)
    padded with negative values."""
    if labels.ndim != 2 or len(labels) != len(logits):
        raise ValueError(f"labels must be (batch={len(logits)}, longest text), got {tuple(labels.shape)}.")
    if (labels >= config.vocab_size).any() or (labels == config.pad_token_id).any():
        raise ValueError(
            f"labels must be below vocab_size={config.vocab_size} and not the blank {config.pad_token_id}; pad with "
            "-100."
        )
    precision = torch.float64 if logits.dtype == torch.float64 else torch.float32
    log_probs = nn.functional.log_softmax(logits, dim=-1, dtype=precision)
    real = labels >= 0
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's has no zero_infinity
        return nn.functional.ctc_loss(
            log_probs.transpose(0, 1),
            labels.masked_fill(~real, 0),
            lengths,
            real.sum(-1),
            blank=config.pad_token_id,
            reduction=config.ctc_loss_reduction,
            zero_infinity=config.ctc_zero_infinity,
        )


class TinyMyoForSpeechSynthesis(TinyMyoPreTrainedModel):
    """The spectrum of what is said, frame by frame, for a vocoder; and its phonemes, an auxiliary task."""

    # The loss is a mean over its own batch: the Trainer is to average it over accumulation steps and processes.
    accepts_loss_kwargs = False

    def __init__(self, config: TinyMyoConfig):
        super().__init__(config)
        require_frames(self, config)
        self.tinymyo = TinyMyoModel(config)
        self.spectrogram_head = nn.Linear(config.hidden_size, config.num_mel_bins)
        self.phoneme_head = nn.Linear(config.hidden_size, config.num_phonemes)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        channel_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        phoneme_labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TinyMyoForSpeechSynthesisOutput:
        """
        Args:
            input_values: (batch, channels, time), as the feature extractor makes it.
            attention_mask: (batch, time), 1 for real samples, 0 for the padding behind a shorter utterance.
            channel_mask: (batch, channels), 1 for real channels and 0 for padding.
            labels: (batch, frames, num_mel_bins), the spectrum of speech recorded with the EMG. Of silent speech there
                is none: training aligns the prediction with the same sentence read aloud (`trainers`).
            phoneme_labels: (batch, frames) phoneme ids, -100 where they are not known.

        Returns:
            `spectrogram` (batch, frames, num_mel_bins) and `phoneme_logits` (batch, frames, num_phonemes), those of
            frames beyond an utterance meaningless. With labels the `loss`: the mean over real frames of the Euclidean
            distance of the spectra, plus `phoneme_loss_weight` times the cross-entropy of the phonemes.

        Raises:
            ValueError: shapes that do not fit, ids that are no phonemes, or `phoneme_labels` without `labels`.
        """
        outputs = self.tinymyo(input_values, attention_mask=attention_mask, channel_mask=channel_mask, **kwargs)
        spectrogram = self.spectrogram_head(outputs.last_hidden_state)
        phoneme_logits = self.phoneme_head(outputs.last_hidden_state)

        loss = None
        if labels is None and phoneme_labels is not None:
            raise ValueError("phoneme_labels are auxiliary: pass labels, the spectra, too.")
        if labels is not None:
            mask = self.tinymyo.stem.frame_mask(attention_mask)
            if mask is None:
                mask = torch.ones(spectrogram.shape[:2], dtype=torch.bool, device=spectrogram.device)
            loss = frame_distance(spectrogram, labels, mask)
            if phoneme_labels is not None:
                error = phoneme_error(phoneme_logits, phoneme_labels, mask)
                loss = loss + self.config.phoneme_loss_weight * error
        return TinyMyoForSpeechSynthesisOutput(
            loss=loss,
            spectrogram=spectrogram,
            phoneme_logits=phoneme_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def frame_distance(spectrogram: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean Euclidean distance of the frames of two (batch, frames, bins) spectra where `mask` (batch, frames) is."""
    if labels.shape != spectrogram.shape:
        raise ValueError(
            f"labels must be (batch, frames, num_mel_bins) = {tuple(spectrogram.shape)}, got {tuple(labels.shape)}: an "
            "utterance has config.num_frames(samples) frames."
        )
    difference = (spectrogram.float() - labels.float())[mask]  # what labels hold in the padding does not matter
    return difference.norm(dim=-1).sum() / mask.sum().clamp(min=1)


def phoneme_error(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits (batch, frames, phonemes) over the frames of `mask` (batch, frames) with a label."""
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"phoneme_labels must be (batch, frames) = {tuple(logits.shape[:2])}, got {tuple(labels.shape)}."
        )
    if (labels >= logits.shape[-1]).any():
        raise ValueError(f"phoneme_labels must be below num_phonemes={logits.shape[-1]}; -100 where not known.")
    known = mask & (labels >= 0)
    error = nn.functional.cross_entropy(logits[known].float(), labels[known].long(), reduction="sum")
    return error / known.sum().clamp(min=1)


__all__ = ["TinyMyoForCTC", "TinyMyoForSpeechSynthesis", "TinyMyoForSpeechSynthesisOutput"]
