"""Pretraining on two corpora of noise, one of 4 and one of 3 channels. As a script, for several processes:

torchrun --nproc_per_node 2 tests/trainers/tiny_pretraining.py '{"output_dir": "...", ...}'
"""

import json
import os
import sys
from pathlib import Path

import datasets
from tiny_run import TINY_MODEL, make_split

import trainers.corpora
import trainers.pretrain
import trainers.probe
from tinymyo_hf import TinyMyoFeatureExtractor
from trainers.parsing import parse_recipe

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0}


def tiny_corpora() -> dict:
    """Name -> `(DatasetDict, feature extractor)`, as `load_corpus` returns them."""
    corpora = {}
    for name, channels, windows in (("tiny_four", 4, 40), ("tiny_three", 3, 24)):
        splits = {
            "train": make_split(windows, channels, ("a", "b"), channels),
            "validation": make_split(16, 9 + channels, ("c",), channels),
        }
        extractor = TinyMyoFeatureExtractor(feature_size=channels, window_length=40, stride=20, patch_size=10)
        corpora[name] = datasets.DatasetDict(splits), extractor
    return corpora


def recipe(**fields) -> dict:
    """A run of 3 epochs of 8 updates, each of 8 windows."""
    defaults = {
        "task": "pretraining",
        "corpora": [{"dataset": "tiny_four"}, {"dataset": "tiny_three"}],
        "model_config": TINY_MODEL,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "reconstructions": 0,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return defaults | fields


def use(corpora: dict, replace=setattr) -> None:
    """Let recipes name these corpora; `replace` is `monkeypatch.setattr` in tests."""
    replace(trainers.corpora, "BUILDERS", tuple(corpora))
    for module in (trainers.corpora, trainers.probe):
        replace(module, "load_corpus", lambda name, **options: corpora[name])


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    use(tiny_corpora())
    results = trainers.pretrain.run(*parse_recipe(recipe(**json.loads(sys.argv[1]))))
    if results:
        Path(sys.argv[2]).write_text(json.dumps(results["losses"]))
