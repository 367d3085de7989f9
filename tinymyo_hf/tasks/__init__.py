"""What recordings become before a model sees them, and its outputs after: the same for every way to run the model.

Classes to be mixed in where the model runs: with torch in `tinymyo_hf.pipelines`, with onnxruntime in
`tinymyo_hf.onnx`. Arrays are NumPy's; nothing here needs torch or transformers.
"""

from tinymyo_hf.tasks.base import EmgTask, RecordingInput
from tinymyo_hf.tasks.heads import TASK_OF_HEAD, task_of

__all__ = ["TASK_OF_HEAD", "EmgTask", "RecordingInput", "task_of"]
