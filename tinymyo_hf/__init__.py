"""tinymyo-hf: surface-EMG models for the Hugging Face ecosystem.

Importing the package registers its models with the Auto classes and its pipelines with `pipeline(...)`, where torch and
transformers are installed and the environment does not say TINYMYO_HF_REGISTER=0. What runs exported models needs
neither.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import PurePath

__version__ = "0.1.0"

_PUBLIC = {
    "SEMG_TRANSFORMER_PRESETS": "semg_transformer.configuration_semg_transformer",
    "SEMGTransformerConfig": "semg_transformer.configuration_semg_transformer",
    "SEMGTransformerForCTC": "semg_transformer.modeling_semg_transformer",
    "SEMGTransformerModel": "semg_transformer.modeling_semg_transformer",
    "SEMGTransformerFeatureExtractor": "semg_transformer.feature_extraction_semg_transformer",
    "SEMGTransformerPreprocessing": "semg_transformer.preprocessing_semg_transformer",
    "SEMGTransformerProcessor": "semg_transformer.processing_semg_transformer",
    "TINY_BIOMOE_PRESETS": "tiny_biomoe.configuration_tiny_biomoe",
    "BiosignalImageProcessor": "tiny_biomoe.image_processing_tiny_biomoe",
    "TinyBioMoEConfig": "tiny_biomoe.configuration_tiny_biomoe",
    "TinyBioMoEForSequenceClassification": "tiny_biomoe.modeling_tiny_biomoe",
    "TinyBioMoEModel": "tiny_biomoe.modeling_tiny_biomoe",
    "TINYMYO_PRESETS": "tinymyo.configuration_tinymyo",
    "TinyMyoConfig": "tinymyo.configuration_tinymyo",
    "TinyMyoFeatureExtractor": "tinymyo.feature_extraction_tinymyo",
    "TinyMyoForCTC": "tinymyo.modeling_tinymyo_speech",
    "TinyMyoForFrameClassification": "tinymyo.modeling_tinymyo_frames",
    "TinyMyoForPreTraining": "tinymyo.modeling_tinymyo",
    "TinyMyoForRegression": "tinymyo.modeling_tinymyo",
    "TinyMyoForSequenceClassification": "tinymyo.modeling_tinymyo",
    "TinyMyoForSpeechSynthesis": "tinymyo.modeling_tinymyo_speech",
    "TinyMyoModel": "tinymyo.modeling_tinymyo",
    "TinyMyoPreprocessing": "tinymyo.preprocessing_tinymyo",
    "TinyMyoProcessor": "processing",
    "BeamSearchDecoder": "decoding",
    "GreedyStream": "decoding",
    "greedy_decode": "decoding",
    "CharacterVocabulary": "characters",
    "EmgCharacterTokenizer": "tokenization",
    "apply_keystrokes": "charset",
    "EmgClassificationPipeline": "pipelines",
    "EmgEmbeddingPipeline": "pipelines",
    "EmgEventsPipeline": "pipelines",
    "EmgRegressionPipeline": "pipelines",
    "EmgToAudioPipeline": "pipelines",
    "EmgToTextPipeline": "pipelines",
    "in_context": "tasks.utterances",
    "SignalError": "signal",
    "count_macs": "counting",
    "fold_batch_norms": "tiny_biomoe.folding_tiny_biomoe",
}
__all__ = [*_PUBLIC, "register"]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def register() -> None:
    """Registers the family with the Auto classes and the pipelines of transformers. Safe to call again."""
    from tinymyo_hf import registration

    registration.register()


def _registers_on_import() -> bool:
    """Whether importing the package registers it."""
    if os.environ.get("TINYMYO_HF_REGISTER") == "0":
        return False
    # The console command shows its help without loading torch; its subcommands register when they need the models.
    if PurePath(sys.argv[0] if sys.argv else "").stem == "tinymyo":
        return False
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))
    except (ImportError, ValueError):  # kept from being imported, or replaced
        return False


if _registers_on_import():
    register()
