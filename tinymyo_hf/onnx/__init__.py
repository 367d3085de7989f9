"""Exported models with onnxruntime, as `pipeline(...)` of transformers runs checkpoints, without it and without torch.

    from tinymyo_hf.onnx import pipeline

    classify = pipeline("emg-classification", model="OUT")     # the folder that `tinymyo export onnx` wrote
    classify("recording.csv", sampling_rate=200)["label"]

Where torch is installed as well, TINYMYO_HF_REGISTER=0 in the environment keeps `import tinymyo_hf` from loading it.
"""

from tinymyo_hf.onnx.model import OnnxModel, OnnxModelError, is_export
from tinymyo_hf.onnx.pipelines import ONNXPipeline, pipeline

__all__ = ["ONNXPipeline", "OnnxModel", "OnnxModelError", "is_export", "pipeline"]
