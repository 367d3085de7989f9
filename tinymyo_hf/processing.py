"""Feature extractor and tokenizer of a CTC model as one object, saved in and loaded from one folder."""

from typing import Any

from numpy.typing import ArrayLike
from transformers import AutoConfig, BatchEncoding, BatchFeature
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file

from tinymyo_hf.tinymyo.feature_extraction_tinymyo import TinyMyoFeatureExtractor
from tinymyo_hf.tokenization import EmgCharacterTokenizer


class EmgProcessor(ProcessorMixin):
    """Raw recordings to `input_values`, text to `labels`, ids to text.

    A model family has a subclass, which is what its checkpoints name.

    Args:
        feature_extractor, tokenizer: those of the model.

    Raises:
        TypeError: objects of other kinds.
    """

    def __init__(self, feature_extractor: SequenceFeatureExtractor, tokenizer: EmgCharacterTokenizer):
        super().__init__(feature_extractor, tokenizer)

    def __call__(
        self,
        raw_signal: ArrayLike | list[ArrayLike] | None = None,
        text: str | list[str] | None = None,
        sampling_rate: float | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
    ) -> BatchFeature | BatchEncoding:
        """What a CTC model is trained on: prepared recordings, and what was written or said in them.

        Args:
            raw_signal, sampling_rate: as for the feature extractor.
            text: of one recording, or of each of several.
            padding, return_tensors: of both.

        Returns:
            `input_values` and `attention_mask` of recordings; with text also `labels` (batch, longest), padded with
            -100, which the loss leaves out. Text alone: `input_ids` and `attention_mask` of the tokenizer.

        Raises:
            ValueError: neither is given, or not one text for each recording; see also the two parts.
        """
        if raw_signal is None:
            if text is None:
                raise ValueError("neither a recording nor text is given; pass raw_signal, text or both")
            return self.tokenizer(text, padding=padding, return_tensors=return_tensors)
        features = self.feature_extractor(
            raw_signal, sampling_rate=sampling_rate, padding=padding, return_tensors=return_tensors
        )
        if text is not None:
            features["labels"] = self._labels(text, len(features["input_values"]), padding, return_tensors)
        return features

    def decode(self, token_ids: Any, **options: Any) -> str | list[str]:
        """Text of ids; `group_tokens=True` for the best ids of every frame. As of the tokenizer."""
        return self.tokenizer.decode(token_ids, **options)

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes of a batch."""
        return [*self.feature_extractor.model_input_names, "labels"]

    def _labels(self, text: str | list[str], recordings: int, padding: bool | str, return_tensors: str | None) -> Any:
        texts = [text] if isinstance(text, str) else list(text)
        if len(texts) != recordings:
            raise ValueError(f"{len(texts)} texts for {recordings} recordings; pass one for each")
        ids = self.tokenizer(texts).input_ids
        if padding is not False:
            longest = max(map(len, ids))
            ids = [[*row, *[-100] * (longest - len(row))] for row in ids]
        return BatchEncoding({"labels": ids}, tensor_type=return_tensors)["labels"]


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
    if cached_file(source, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False, **options):
        return True
    architectures = AutoConfig.from_pretrained(source, **options).architectures or []
    return any(name.endswith("ForCTC") for name in architectures)
