"""The cost of int8 layers in characters."""

import json

import pytest
import torch

from benchmarks import ctc_int8
from tinymyo_hf import SEMGTransformerConfig, SEMGTransformerForCTC

DATA = {
    "preset": "typing", "protocol": "unseen_sessions", "num_subjects": 1, "num_sessions": 3, "num_repetitions": 1,
    "duration": 6.0,
}  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path):
    """A model that never sees a key: all characters typed are deleted."""
    torch.manual_seed(0)
    model = SEMGTransformerForCTC(SEMGTransformerConfig(hidden_size=32, num_hidden_layers=1, num_conv_pos_embeddings=8))
    with torch.no_grad():
        model.lm_head.bias[98] += 100
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def lines_of(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in output.splitlines() if line.startswith(("float32", "int8"))}


def test_both_models_are_scored_on_the_corpus_of_the_run_and_on_a_named_one(checkpoint, tmp_path, capsys):
    cache = str(tmp_path / "cache")
    data = {"dataset": "synthetic", "data_dir": None, "cache_dir": cache, "dataset_config": DATA}
    (checkpoint / "results.json").write_text(json.dumps({"arguments": {"data": data}}))
    ctc_int8.main([str(checkpoint)])
    by_run = capsys.readouterr().out
    ctc_int8.main(
        [str(checkpoint), "--dataset", "synthetic", "--cache_dir", cache, "--dataset_config", json.dumps(DATA)]
    )
    by_name = capsys.readouterr().out
    for output in (by_run, by_name):
        rows = lines_of(output)
        assert rows["float32"][1:4] == ["CER", "100.00", "%"] == rows["int8"][1:4]
        assert float(rows["int8"][4]) < float(rows["float32"][4])
        assert "frames with the same best character: 100.00 %" in output
