"""Pretraining on two corpora of noise, one of 4 and one of 3 channels. As a script, for several processes:

torchrun --nproc_per_node 2 tests/trainers/tiny_pretraining.py '{"output_dir": "...", ...}'
"""

import copy
import json
import sys
from pathlib import Path

import datasets
import torch
from tiny_run import TINY_MODEL, make_split
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import trainers.corpora
import trainers.pretrain
import trainers.probe
from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForPreTraining
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


def sharded_differences() -> dict[str, float]:
    """Largest differences between a model and itself with the weights divided among the processes, as FSDP does."""
    torch.manual_seed(0)
    model = TinyMyoForPreTraining(TinyMyoConfig(num_channels=4, **TINY_MODEL, **NO_DROPOUT))
    sharded = copy.deepcopy(model)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in sharded.tinymyo.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    windows, mask = torch.randn(2, 4, 40), torch.rand(2, 16) < 0.5
    losses, gradients = [], []
    for each in (model, sharded):
        losses.append(each(windows, bool_masked_pos=mask).loss)
        losses[-1].backward()
        gradients.append([getattr(p.grad, "full_tensor", lambda g=p.grad: g)() for p in each.parameters()])
    weight = sharded.tinymyo.layers[0].mlp.fc1.weight
    features = [trainers.probe.encode(each.eval(), windows, torch.device("cpu")) for each in (model, sharded)]
    return {
        "shard": weight.to_local().numel() / weight.numel(),
        "loss": abs(losses[0] - losses[1]).item(),
        "gradient": max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True)),
        "features": float(abs(features[0] - features[1]).max()),
    }


if __name__ == "__main__":
    use(tiny_corpora())
    results = trainers.pretrain.run(*parse_recipe(recipe(**json.loads(sys.argv[1]))))
    sharded = sharded_differences()
    if results:
        Path(sys.argv[2]).write_text(json.dumps({"losses": results["losses"], "sharded": sharded}))
    torch.distributed.destroy_process_group()
