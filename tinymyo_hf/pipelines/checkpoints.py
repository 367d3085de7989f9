"""From a checkpoint to its model."""

from typing import Any

from transformers import AutoConfig, PreTrainedModel

import tinymyo_hf


class SavedModel:
    """Loads a checkpoint as the model it was saved as, `config.architectures`, for `pipeline(task, model="folder")`.

    The library looks for these classes among its own. Under its Auto class for the task, a checkpoint with another head
    would get a random one; as what it is, the pipeline refuses it by name.
    """

    @classmethod
    def from_pretrained(cls, source: str, **kwargs: Any) -> PreTrainedModel:
        """What `from_pretrained` of the model's own class returns, given the same arguments.

        Raises:
            ValueError: the architecture is none of this package.
        """
        config = AutoConfig.from_pretrained(source, **kwargs)
        for name in config.architectures or []:
            model_class = getattr(tinymyo_hf, name, None)
            if model_class is not None:
                return model_class.from_pretrained(source, **kwargs)
        raise ValueError(f"{source}: config.json names no architecture of tinymyo_hf ({config.architectures})")
