"""The comparison of ways to stream a typing model."""

import json

import pytest

from benchmarks import streaming_choices
from tinymyo_hf import SEMGTransformerConfig, SEMGTransformerForCTC

DATA = {
    "dataset": "synthetic",
    "data_dir": None,
    "dataset_config": {
        "preset": "typing", "protocol": "unseen_sessions", "num_subjects": 1, "num_sessions": 3, "num_repetitions": 1,
        "duration": 6.0,
    },
}  # fmt: skip


def write_run(folder, cache, **fields):
    config = SEMGTransformerConfig(hidden_size=32, num_hidden_layers=1, num_conv_pos_embeddings=8, **fields)
    SEMGTransformerForCTC(config).save_pretrained(folder)
    data = DATA | {"cache_dir": str(cache)}
    (folder / "results.json").write_text(json.dumps({"arguments": {"data": data}}))


def test_rows_of_runs(tmp_path, capsys):
    write_run(tmp_path / "full", tmp_path / "cache")
    write_run(tmp_path / "window", tmp_path / "cache", attention_window=100)
    write_run(
        tmp_path / "running_causal",
        tmp_path / "cache",
        input_norm="running",
        positional_conv_causal=True,
        attention_window=100,
    )
    streaming_choices.main([str(tmp_path), "--read_only"])
    lines = (tmp_path / "streaming_choices.md").read_text().splitlines()
    assert len(lines) == 2 + 3 + 5 + 1
    cells = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert cells[0][:2] == ["published: whole sessions", "offline"]
    # 630 ms of look-ahead and 490 ms until the hop ends
    assert cells[1][:2] == ["published: last 4 s every 500 ms, 630 ms of look-ahead", "1120"]
    assert cells[-2][:2] == ["attention to 1 s: norm frozen to an earlier session of the person", "630"]
    assert cells[-1][:2] == ["attention to 1 s, running norm, causal positions", "0"]
    assert all(float(row[2]) > 0 for row in cells)
    assert "\n".join(lines) in capsys.readouterr().out
    assert (tmp_path / "streaming_choices.png").read_bytes()[:4] == b"\x89PNG"


def test_only_what_is_missing_is_trained(tmp_path, monkeypatch):
    trained = {}
    monkeypatch.setattr(
        streaming_choices, "run_recipe", lambda recipe, fields: trained.update({fields[-1].rsplit("/", 1)[-1]: fields})
    )
    for name in ("window", "running"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text("{}")
    streaming_choices.train_missing(tmp_path, ["--bf16", "true"])
    assert list(trained) == ["full", "running_causal", "frozen_causal"]
    assert trained["full"][trained["full"].index("--model_config.attention_window") + 1] == "null"
    fields = trained["running_causal"]
    assert fields[fields.index("--model_config.positional_conv_causal") + 1] == "true"


def test_nothing_to_show(tmp_path, capsys):
    with pytest.raises(SystemExit):
        streaming_choices.main([str(tmp_path), "--read_only"])
    assert "--read_only" in capsys.readouterr().err
