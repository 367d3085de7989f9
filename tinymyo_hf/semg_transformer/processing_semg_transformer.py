"""Feature extractor and tokenizer of an sEMG transformer as one object, saved in and loaded from one folder."""

from typing import Any

from numpy.typing import ArrayLike
from transformers import BatchEncoding, BatchFeature
from transformers.processing_utils import ProcessorMixin

from tinymyo_hf.tokenization import EmgCharacterTokenizer

from .feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor


class SEMGTransformerProcessor(ProcessorMixin):
    """Raw recordings to `input_values`, text to `labels`, ids to text.

    Args:
        feature_extractor, tokenizer: those of the model.

    Raises:
        TypeError: objects of other kinds.

    Examples:
        >>> import numpy as np
        >>> from tinymyo_hf import EmgCharacterTokenizer, SEMGTransformerFeatureExtractor
        >>> processor = SEMGTransformerProcessor(SEMGTransformerFeatureExtractor(), EmgCharacterTokenizer())
        >>> recording = np.zeros((32, 8000), np.float32)
        >>> batch = processor(recording, text="Hi", sampling_rate=2000, return_tensors="pt")
        >>> batch["input_values"].shape, batch["labels"].tolist()
        (torch.Size([1, 32, 8000]), [[33, 8]])
    """

    def __init__(self, feature_extractor: SEMGTransformerFeatureExtractor, tokenizer: EmgCharacterTokenizer):
        super().__init__(feature_extractor, tokenizer)

    def __call__(
        self,
        raw_signal: ArrayLike | list[ArrayLike] | None = None,
        text: str | list[str] | None = None,
        sampling_rate: float | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
    ) -> BatchFeature | BatchEncoding:
        """What a CTC model is trained on: prepared recordings, and what was typed in them.

        Args:
            raw_signal, sampling_rate: as for `SEMGTransformerFeatureExtractor`.
            text: what was typed in one recording, or in each of several.
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
        features = self.feature_extractor(raw_signal, sampling_rate, padding=padding, return_tensors=return_tensors)
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
