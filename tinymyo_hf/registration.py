"""What `import tinymyo_hf` tells transformers: Auto classes, pipelines, and which files travel to the Hub."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from tinymyo_hf.pipelines import EmgClassificationPipeline
from tinymyo_hf.tinymyo.configuration_tinymyo import TinyMyoConfig
from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor
from tinymyo_hf.tinymyo.modeling_tinymyo import (
    TinyMyoForPreTraining,
    TinyMyoForSequenceClassification,
    TinyMyoModel,
)


def register() -> None:
    """Registers every model type and pipeline. Registering again changes nothing."""
    AutoConfig.register(TinyMyoConfig.model_type, TinyMyoConfig, exist_ok=True)
    AutoFeatureExtractor.register(TinyMyoConfig, TinyMyoFeatureExtractor, exist_ok=True)
    AutoModel.register(TinyMyoConfig, TinyMyoModel, exist_ok=True)
    AutoModelForPreTraining.register(TinyMyoConfig, TinyMyoForPreTraining, exist_ok=True)
    AutoModelForSequenceClassification.register(TinyMyoConfig, TinyMyoForSequenceClassification, exist_ok=True)
    if "emg-classification" not in PIPELINE_REGISTRY.get_supported_tasks():  # the library warns of a second time
        PIPELINE_REGISTRY.register_pipeline(
            "emg-classification",
            pipeline_class=EmgClassificationPipeline,
            pt_model=AutoModelForSequenceClassification,
            type="multimodal",
        )
