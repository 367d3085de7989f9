"""What a model is and what it costs, as `tinymyo info` prints it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig, PreTrainedModel

import tinymyo_hf
from tinymyo_hf.counting import count_macs
from tinymyo_hf.quiet import quiet
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig
from tinymyo_hf.semg_transformer.feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerPreTrainedModel
from tinymyo_hf.tiny_biomoe.configuration_tiny_biomoe import TINY_BIOMOE_PRESETS, TinyBioMoEConfig
from tinymyo_hf.tiny_biomoe.image_processing_tiny_biomoe import BiosignalImageProcessor
from tinymyo_hf.tinymyo.configuration_tinymyo import TINYMYO_PRESETS, TinyMyoConfig
from tinymyo_hf.tinymyo.convert_tinymyo_checkpoint import default_feature_extractor
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor
from tinymyo_hf.tinymyo.modeling_tinymyo_speech import TinyMyoForSpeechSynthesis

PRESETS = {
    name: (config_class, fields)
    for config_class, presets in (
        (TinyMyoConfig, TINYMYO_PRESETS),
        (SEMGTransformerConfig, SEMG_TRANSFORMER_PRESETS),
        (TinyBioMoEConfig, TINY_BIOMOE_PRESETS),
    )
    for name, fields in presets.items()
}
# An sEMG transformer takes any length; it was trained on 4 s, with 0.9 s before and 0.1 s after them.
TYPING_SAMPLES = 1800 + 8000 + 200

Extractor = TinyMyoFeatureExtractor | SEMGTransformerFeatureExtractor | BiosignalImageProcessor


class ModelInfoError(ValueError):
    """A model that cannot be described; the message names it and the fix."""


@dataclass(frozen=True)
class ModelInfo:
    """A model without its weights.

    Attributes:
        name: as it was asked for.
        model: on the meta device.
        extractor: its preprocessing; None where none is saved beside the model.
        samples: time of one input; None where neither the preprocessing nor the caller tells, and of images.
    """

    name: str
    model: PreTrainedModel
    extractor: Extractor | None
    samples: int | None

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Of one input, with the batch of 1; None where its length is not known."""
        config = self.model.config
        if isinstance(config, TinyBioMoEConfig):
            image = (config.num_channels, config.image_size, config.image_size)
            return (1, *image) if self.model.base_model is self.model else (1, config.num_images, *image)
        return None if self.samples is None else (1, config.num_channels, self.samples)

    def macs(self) -> dict[str, int] | None:
        """As `count_macs` of one input; None where its length is not known.

        Raises:
            ModelInfoError: the model does not take inputs of that length.
        """
        if self.input_shape is None:
            return None
        try:
            return count_macs(self.model, self.input_shape)
        except ValueError as error:
            raise ModelInfoError(f"{self.name} with {self.samples} samples: {error}") from error

    def report(self) -> str:
        """Input, labels, parameters and MACs as text, with a table of the model's parts."""
        macs = self.macs()
        parameters = self.model.num_parameters()
        total = "give --samples to count them" if macs is None else f"{_scaled(macs['total'])} for one input"
        width = max(28, *(len(part) + 2 for part in self._parts()))
        lines = [
            f"{self.name}: {type(self.model).__name__}",
            f"input       {self._input()}",
            f"labels      {self._labels()}",
            f"parameters  {parameters:,} ({4 * parameters / 1e6:.1f} MB in float32)",
            f"MACs        {total}",
            "",
            f"{'part':{width}}{'parameters':>14}{'MACs':>12}",
        ]
        for part in self._parts():
            size = sum(parameter.numel() for parameter in self.model.get_submodule(part).parameters())
            cost = "" if macs is None else _scaled(macs.get(part, 0))
            lines.append(f"{part:{width}}{size:>14,}{cost:>12}")
        return "\n".join(lines)

    def _parts(self) -> list[str]:
        """The parts of the encoder and of the head that have weights."""
        base = self.model.base_model
        names = {module: name for name, module in self.model.named_modules()}
        heads = [child for child in self.model.children() if child is not base]
        parts = [*base.children(), *heads] if base is not self.model else list(base.children())
        return [names[part] for part in parts if any(True for _ in part.parameters())]

    def _input(self) -> str:
        if isinstance(self.model.config, TinyBioMoEConfig):
            return self._images()
        text = f"{self.model.config.num_channels} channels"
        if self.samples is not None:
            text += f" x {self.samples} samples"
        extractor = self.extractor
        if extractor is None:
            return text
        if self.samples is not None:
            text += f" ({self.samples / extractor.sampling_rate:g} s at {extractor.sampling_rate:g} Hz)"
        if isinstance(extractor, SEMGTransformerFeatureExtractor):
            return f"{text}, raw"
        if extractor.band_pass is not None:
            lower, upper = extractor.band_pass
            text += (
                f", above {lower:g} Hz" if upper is None else f", {'' if lower is None else f'{lower:g}'}-{upper:g} Hz"
            )
        if extractor.normalization != "none":
            text += f", {extractor.normalization} per {extractor.normalization_scope}"
        return text

    def _images(self) -> str:
        *several, colours, height, width = self.input_shape[1:]
        count = several[0] if several else 1
        text = f"{count} image{'s' if count > 1 else ''} of {colours} x {height} x {width}"
        extractor = self.extractor
        if extractor is None:
            return text
        seconds = extractor.window_length / extractor.sampling_rate
        return (
            f"{text} ({', '.join(extractor.representations)} of {extractor.window_length} samples, {seconds:g} s at "
            f"{extractor.sampling_rate:g} Hz)"
        )

    def _labels(self) -> str:
        if self.model.base_model is self.model or type(self.model).__name__.endswith("ForPreTraining"):
            return "none"
        if type(self.model).__name__.endswith("ForCTC"):
            return f"{self.model.config.vocab_size - 1} characters, and the blank of CTC"
        if isinstance(self.model, TinyMyoForSpeechSynthesis):
            config = self.model.config
            return f"{config.num_mel_bins} values of a spectrum and {config.num_phonemes} phonemes for each frame"
        labels = list(self.model.config.id2label.values())
        named = labels != [f"LABEL_{index}" for index in range(len(labels))]
        return f"{len(labels)}: {', '.join(labels)}" if named else f"{len(labels)}, not named"


def model_info(source: str, samples: int | None = None) -> ModelInfo:
    """Look a model up, by its configuration alone.

    Args:
        source: the name of one of `PRESETS`, or folder or Hub id of a checkpoint.
        samples: time of one input; by default the window of its preprocessing (for a preset, and for every sEMG
            transformer, the published one). Not for models of images.

    Raises:
        ModelInfoError: there is no such model, it is none of this package, or `samples` is not for it.
    """
    if source in PRESETS:
        config_class, fields = PRESETS[source]
        config = config_class(**fields)
    else:
        config = _read_config(source)
    if samples is not None and isinstance(config, TinyBioMoEConfig):
        raise ModelInfoError(f"{source} takes images, all of the same size: leave the number of samples out")
    architecture = (config.architectures or ["no architecture"])[0]
    model_class = getattr(tinymyo_hf, architecture, None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)):
        raise ModelInfoError(f"{source} holds {architecture} ({config.model_type}), which is no model of tinymyo_hf")
    with torch.device("meta"):
        model = model_class(config)
    extractor = _read_extractor(source) if source not in PRESETS else _preset_extractor(model)
    if samples is None and isinstance(model, SEMGTransformerPreTrainedModel):
        samples = TYPING_SAMPLES
    elif samples is None and extractor is not None and not isinstance(config, TinyBioMoEConfig):
        samples = extractor.window_length
    return ModelInfo(source, model, extractor, samples)


def _preset_extractor(model: PreTrainedModel) -> Extractor:
    if isinstance(model.config, TinyMyoConfig):
        return default_feature_extractor(model)
    is_typing = isinstance(model.config, SEMGTransformerConfig)
    return SEMGTransformerFeatureExtractor() if is_typing else BiosignalImageProcessor()


def _read_config(source: str) -> PreTrainedConfig:
    if not Path(source).exists() and (Path(source).is_absolute() or "/" not in source):
        raise ModelInfoError(
            f"{source}: neither a folder nor one of the presets {', '.join(PRESETS)}; a checkpoint on the Hub is named "
            "user/name"
        )
    try:
        with quiet():
            return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelInfoError(f"{source}: no usable configuration ({' '.join(str(error).split())})") from error


def _read_extractor(source: str) -> Extractor | None:
    try:
        with quiet():
            return AutoFeatureExtractor.from_pretrained(source)
    except OSError:  # none is saved
        return None


def _scaled(macs: int) -> str:
    """Four digits and the unit: 1.909 G."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= factor:
            return f"{macs / factor:.4g} {unit}"
    return str(macs)
