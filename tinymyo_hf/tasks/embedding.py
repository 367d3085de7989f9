"""What an encoder makes of each window and of the recording."""

from typing import Any

import numpy as np

from tinymyo_hf.signal import SignalError
from tinymyo_hf.tasks.windows import FullWindowTask


class EmbeddingTask(FullWindowTask):
    """From vectors (1, size) of windows, called "embeddings", to what `pipeline("emg-embedding")` returns."""

    head = "Model"

    def check(self) -> None:
        """Whether the encoder works on windows, and has the patches or images of the preprocessing."""
        config = self.model_config
        if config.model_type not in ("tinymyo", "tiny_biomoe") or getattr(config, "stem", "patches") != "patches":
            raise SignalError(
                f"{self.source or 'model'}: a {config.model_type} that makes frames of whole recordings; {self.task} "
                "works on windows: use a TinyMyo with stem=patches, or a Tiny-BioMoE"
            )
        super().check()

    def result(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Vectors of windows, and their mean."""
        embeddings = np.concatenate([output["embeddings"] for output in outputs])
        return {
            "embedding": embeddings.mean(axis=0, dtype=np.float64).astype(np.float32),
            "embeddings": embeddings,
            "windows": [{"start": output["start"], "end": output["end"]} for output in outputs],
        }
