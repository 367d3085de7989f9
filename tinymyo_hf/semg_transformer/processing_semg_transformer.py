"""Feature extractor and tokenizer of an sEMG transformer as one object."""

from tinymyo_hf.processing import EmgProcessor


class SEMGTransformerProcessor(EmgProcessor):
    """Raw recordings to `input_values`, what was typed to `labels`, ids to text.

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
