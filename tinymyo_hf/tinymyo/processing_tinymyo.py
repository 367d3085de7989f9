"""Feature extractor and tokenizer of a TinyMyo for speech as one object."""

from typing import Any

from transformers import AutoConfig
from transformers.utils import cached_file

from tinymyo_hf.processing import EmgProcessor

from .feature_extraction_tinymyo import TinyMyoFeatureExtractor

TOKENIZER_FILE = "tokenizer_config.json"


class TinyMyoProcessor(EmgProcessor):
    """Raw utterances to `input_values`, what was said to `labels`, ids to text: for [`TinyMyoForCTC`].

    The other heads have no tokenizer: of their checkpoints `AutoProcessor` gives the feature extractor alone.

    Args:
        feature_extractor, tokenizer: those of the model.

    Raises:
        TypeError: objects of other kinds.

    Examples:
        >>> import numpy as np
        >>> from tinymyo_hf import EmgCharacterTokenizer, TinyMyoFeatureExtractor
        >>> extractor = TinyMyoFeatureExtractor(sampling_rate=689.0625, patch_size=8, allow_constant_channels=True)
        >>> processor = TinyMyoProcessor(extractor, EmgCharacterTokenizer(characters="abcdefghijklmnopqrstuvwxyz "))
        >>> batch = processor(np.zeros((8, 1600)), text="hi", sampling_rate=689.0625, return_tensors="pt")
        >>> batch["input_values"].shape, batch["labels"].tolist()
        (torch.Size([1, 8, 1600]), [[7, 8]])
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, **kwargs: Any
    ) -> "TinyMyoProcessor | TinyMyoFeatureExtractor":
        """As of the library, but where `AutoProcessor` asks for a checkpoint that has no tokenizer and needs none: the
        feature extractor alone.

        Raises:
            OSError: files are missing.
        """
        if kwargs.get("_from_auto") and not _has_text(pretrained_model_name_or_path, **kwargs):
            return TinyMyoFeatureExtractor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)


def _has_text(source: str, **kwargs: Any) -> bool:
    """Whether a checkpoint has a tokenizer, or a head that cannot do without."""
    places = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
    options = {name: kwargs[name] for name in places if name in kwargs}
    if cached_file(source, TOKENIZER_FILE, _raise_exceptions_for_missing_entries=False, **options):
        return True
    architectures = AutoConfig.from_pretrained(source, **options).architectures or []
    return any(name.endswith("ForCTC") for name in architectures)


__all__ = ["TinyMyoProcessor"]
