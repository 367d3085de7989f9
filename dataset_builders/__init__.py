"""Corpora of surface EMG as Hugging Face datasets: raw recordings -> filtered, normalised windows or recordings.

`load_corpus` for training, `prepare` for Hub-ready folders; as tensors: `WindowDataset` where rows are windows,
`ContinuousDataset` where rows are recordings, `MixedDataset` for several corpora.
"""

import importlib

_PUBLIC = {
    "BUILDERS": "base",
    "DataError": "base",
    "EmgBuilder": "base",
    "EmgBuilderConfig": "base",
    "load_corpus": "base",
    "make_builder": "base",
    "prepare": "hub",
    "simulate_recording": "synthetic",
    "ContinuousDataset": "continuous_view",
    "Cutting": "continuous_view",
    "IterableContinuousDataset": "continuous_view",
    "collate_continuous": "continuous_view",
    "MixedDataset": "mix",
    "IterableWindowDataset": "torch_view",
    "WindowDataset": "torch_view",
    "collate_windows": "torch_view",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
