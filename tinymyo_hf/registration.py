"""What `import tinymyo_hf` tells transformers: Auto classes, pipelines, and which files travel to the Hub."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioFrameClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from tinymyo_hf.pipelines import (
    EmgClassificationPipeline,
    EmgEmbeddingPipeline,
    EmgEventsPipeline,
    EmgRegressionPipeline,
    EmgToAudioPipeline,
    EmgToTextPipeline,
    SavedModel,
)
from tinymyo_hf.processing import TinyMyoProcessor
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC, SEMGTransformerModel
from tinymyo_hf.semg_transformer.processing_semg_transformer import SEMGTransformerProcessor
from tinymyo_hf.tiny_biomoe.configuration_tiny_biomoe import TinyBioMoEConfig
from tinymyo_hf.tiny_biomoe.image_processing_tiny_biomoe import BiosignalImageProcessor
from tinymyo_hf.tiny_biomoe.modeling_tiny_biomoe import TinyBioMoEForSequenceClassification, TinyBioMoEModel
from tinymyo_hf.tinymyo.configuration_tinymyo import TinyMyoConfig
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor
from tinymyo_hf.tinymyo.modeling_tinymyo import (
    TinyMyoForPreTraining,
    TinyMyoForRegression,
    TinyMyoForSequenceClassification,
    TinyMyoModel,
)
from tinymyo_hf.tinymyo.modeling_tinymyo_frames import TinyMyoForFrameClassification
from tinymyo_hf.tinymyo.modeling_tinymyo_speech import TinyMyoForCTC, TinyMyoForSpeechSynthesis
from tinymyo_hf.tokenization import EmgCharacterTokenizer

# Each task's pipeline, and what loads its models: as what they were saved, else as the task wants them; for embeddings
# the encoder alone. Of regressions and of speech synthesis from EMG the library has no Auto class.
PIPELINES = {
    "emg-classification": (EmgClassificationPipeline, (SavedModel, AutoModelForSequenceClassification)),
    "emg-embedding": (EmgEmbeddingPipeline, (AutoModel,)),
    "emg-regression": (EmgRegressionPipeline, (SavedModel, TinyMyoForRegression)),
    "emg-events": (EmgEventsPipeline, (SavedModel, AutoModelForAudioFrameClassification)),
    "emg-to-text": (EmgToTextPipeline, (SavedModel, AutoModelForCTC)),
    "emg-to-audio": (EmgToAudioPipeline, (SavedModel, TinyMyoForSpeechSynthesis)),
}


def register() -> None:
    """Registers every model type and pipeline. Registering again changes nothing."""
    AutoConfig.register(TinyMyoConfig.model_type, TinyMyoConfig, exist_ok=True)
    AutoFeatureExtractor.register(TinyMyoConfig, TinyMyoFeatureExtractor, exist_ok=True)
    AutoTokenizer.register(TinyMyoConfig, EmgCharacterTokenizer, exist_ok=True)
    AutoProcessor.register(TinyMyoConfig, TinyMyoProcessor, exist_ok=True)
    AutoModel.register(TinyMyoConfig, TinyMyoModel, exist_ok=True)
    AutoModelForAudioFrameClassification.register(TinyMyoConfig, TinyMyoForFrameClassification, exist_ok=True)
    AutoModelForCTC.register(TinyMyoConfig, TinyMyoForCTC, exist_ok=True)
    AutoModelForPreTraining.register(TinyMyoConfig, TinyMyoForPreTraining, exist_ok=True)
    AutoModelForSequenceClassification.register(TinyMyoConfig, TinyMyoForSequenceClassification, exist_ok=True)
    AutoConfig.register(SEMGTransformerConfig.model_type, SEMGTransformerConfig, exist_ok=True)
    AutoFeatureExtractor.register(SEMGTransformerConfig, SEMGTransformerFeatureExtractor, exist_ok=True)
    AutoTokenizer.register(SEMGTransformerConfig, EmgCharacterTokenizer, exist_ok=True)
    AutoProcessor.register(SEMGTransformerConfig, SEMGTransformerProcessor, exist_ok=True)
    AutoModel.register(SEMGTransformerConfig, SEMGTransformerModel, exist_ok=True)
    AutoModelForCTC.register(SEMGTransformerConfig, SEMGTransformerForCTC, exist_ok=True)
    AutoConfig.register(TinyBioMoEConfig.model_type, TinyBioMoEConfig, exist_ok=True)
    AutoFeatureExtractor.register(TinyBioMoEConfig, BiosignalImageProcessor, exist_ok=True)
    AutoModel.register(TinyBioMoEConfig, TinyBioMoEModel, exist_ok=True)
    AutoModelForImageClassification.register(TinyBioMoEConfig, TinyBioMoEForSequenceClassification, exist_ok=True)
    AutoModelForSequenceClassification.register(TinyBioMoEConfig, TinyBioMoEForSequenceClassification, exist_ok=True)
    for task, (pipeline_class, loaders) in PIPELINES.items():
        if task not in PIPELINE_REGISTRY.get_supported_tasks():  # the library warns of a second time
            PIPELINE_REGISTRY.register_pipeline(
                task, pipeline_class=pipeline_class, pt_model=loaders, type="multimodal"
            )
