"""Mean and scale of the spectra that the released models of speech synthesis predict.

They are trained on `(spectrum - mean) / deviation`, a mean for each band and one deviation; both are in the file
normalizers.pkl beside the code (https://github.com/dgaddy/silent_speech, `FeatureNormalizer`). Folded into the last
layer, the model predicts spectra as vocoders take them.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinymyo_hf.tinymyo.modeling_tinymyo_speech import TinyMyoForSpeechSynthesis
from tinymyo_hf.tinymyo.released_weights import ConversionError


class _Normalizer:
    """What a pickled `FeatureNormalizer` becomes: its attributes, without its code."""


# All that such a file needs to call; nothing else in a file is called.
_ARRAYS = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "FeatureNormalizer":
            return _Normalizer
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_normalizer(path: str | Path) -> tuple[np.ndarray, float]:
    """Mean (bands,) and deviation of the spectra, from normalizers.pkl.

    Raises:
        ConversionError: the file cannot be read, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            of_spectra = _Unpickler(file).load()[0]
        mean = np.asarray(of_spectra.feature_means, np.float64).ravel()
        deviation = float(np.asarray(of_spectra.feature_stddevs, np.float64))
    except OSError as error:
        raise ConversionError(f"{path}: {error.strerror or error}; name the file normalizers.pkl") from error
    except Exception as error:  # a damaged pickle raises anything
        raise ConversionError(
            f"{path}: not the normalizers.pkl of the released code, a pair of FeatureNormalizer ({error}); take the "
            "file that the model was trained with"
        ) from error
    if not (np.isfinite(mean).all() and np.isfinite(deviation) and deviation > 0):
        raise ConversionError(f"{path}: its mean or deviation is not finite and positive; copy the file again")
    return mean, deviation


def fold_normalizer(model: TinyMyoForSpeechSynthesis, mean: np.ndarray, deviation: float) -> None:
    """Let a model of standardised spectra predict spectra.

    Raises:
        ConversionError: it predicts another number of bands.
    """
    bands = model.config.num_mel_bins
    if len(mean) != bands:
        raise ConversionError(f"the normalizer is of {len(mean)} bands, the model predicts {bands}; take its own")
    head = model.spectrogram_head
    with torch.no_grad():
        head.weight.mul_(deviation)
        head.bias.copy_(head.bias.double() * deviation + torch.from_numpy(mean))
