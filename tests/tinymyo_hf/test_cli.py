"""The `tinymyo` command: instant help, predictions, conversion, and one clear line for what a user can put right."""

import csv
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForPreTraining, TinyMyoForSequenceClassification
from tinymyo_hf.cli import app

COMMANDS = (
    "demo",
    "prepare",
    "inspect",
    "push",
    "train",
    "evaluate",
    "predict",
    "info",
    "convert",
    "simulate",
    "build-lm",
    "stream",
)


def tinymyo(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def refused(*arguments):
    """The message of a command that ends with exit code 2: one line, no traceback."""
    message = tinymyo(*arguments, code=2).stderr
    assert message.startswith("tinymyo: ") and message.count("\n") == 1 and "Traceback" not in message, message
    return message


@pytest.fixture
def checkpoint(tiny_config, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "model"
    TinyMyoForSequenceClassification(tiny_config).save_pretrained(folder)
    extractor = TinyMyoFeatureExtractor(feature_size=4, window_length=100, stride=50, patch_size=10)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "recording.npy"
    np.save(path, np.random.default_rng(0).normal(size=(4, 2000)))
    return path


def test_help_loads_no_torch():
    code = (
        "import sys; sys.argv = ['tinymyo', '--help']\n"
        "from tinymyo_hf.cli import app\n"
        "try: app()\n"
        "finally: assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert all(command in run.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    assert "Options" in tinymyo(command, "--help").output


def test_predict_prints_a_table_and_writes_files(checkpoint, recording, tmp_path):
    out = tinymyo("predict", checkpoint, recording, "--sampling-rate", 200, "--output", tmp_path / "out/w.csv").stdout
    assert "19 more windows" in out and "whole recording:" in out and "39 windows written" in out
    with open(tmp_path / "out/w.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 39 and rows[1]["start"] == "0.25" and rows[1]["label"] in ("rest", "fist", "open")
    tinymyo("predict", checkpoint, recording, "--sampling-rate", 200, "--output", tmp_path / "w.json", "--stride", 100)
    prediction = json.loads((tmp_path / "w.json").read_text())
    assert len(prediction["windows"]) == 20 and prediction["label"] in prediction["scores"]
    assert not list(tmp_path.rglob("*.partial"))


def test_predict_from_part_of_a_table_at_another_rate(checkpoint, tmp_path):
    path = tmp_path / "recording.csv"
    samples = np.random.default_rng(0).normal(size=(1000, 5))
    np.savetxt(path, samples, delimiter=",", header="a,b,c,d,e", comments="")
    assert "5 channels" in refused("predict", checkpoint, path, "--sampling-rate", 400)
    options = ("--sampling-rate", 400, "--channels", "a,b,2,-1")
    assert "--resample" not in refused("predict", checkpoint, path, *options)
    assert "whole recording" in tinymyo("predict", checkpoint, path, *options, "--resample").stdout


def test_a_file_without_a_header(checkpoint, tmp_path):
    path = tmp_path / "recording.dat"
    np.random.default_rng(0).normal(0, 100, (1000, 4)).astype("<i2").tofile(path)
    assert "state raw_type" in refused("predict", checkpoint, path, "--sampling-rate", 200)
    options = ("--sampling_rate", 200, "--raw_type", "int16", "--raw-channels", 4)
    assert " 4.50       5.00 " in tinymyo("predict", checkpoint, path, *options).stdout  # 5 s, windows of 0.5 s
    assert "5 s" in tinymyo("inspect", path, *options).stdout


def test_options_with_underscores(tmp_path):
    """As the fields of a corpus are written."""
    assert "missing.zip does not exist" in refused(
        "prepare", "uci_emg", "--data_dir", tmp_path / "missing.zip", "--out", tmp_path / "out", "--num_proc", 1
    )


def test_predict_refuses_what_cannot_work(checkpoint, recording, tmp_path):
    def predict(*arguments):
        return refused("predict", *arguments)

    assert "missing.npy: no such file" in predict(checkpoint, tmp_path / "missing.npy", "--sampling-rate", 200)
    assert "sampling rate is not known" in predict(checkpoint, recording)
    assert "1000" in predict(checkpoint, recording, "--sampling-rate", 1000)
    assert "no such checkpoint" in predict(tmp_path / "none", recording, "--sampling-rate", 200)
    assert "change the name" in predict(checkpoint, recording, "--sampling-rate", 200, "--output", tmp_path / "w.txt")
    (checkpoint / "config.json").unlink()
    assert "cannot be loaded" in predict(checkpoint, recording, "--sampling-rate", 200)
    assert not (tmp_path / "w.txt").exists()


def test_a_full_disk_is_one_line(checkpoint, recording, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "labels.csv")

    monkeypatch.setattr("tinymyo_hf.predictions.Prediction.write", full)
    options = ("--sampling-rate", 200, "--output", tmp_path / "labels.csv")
    assert "No space left on device" in refused("predict", checkpoint, recording, *options)


def test_a_reader_who_has_seen_enough(recording):
    """`tinymyo inspect ... | head -1` says nothing of a broken pipe."""
    command = [sys.executable, "-m", "tinymyo_hf.cli", "inspect", str(recording), "--sampling-rate", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.close()
        assert "tinymyo:" not in run.stderr.read()


def test_debug_shows_the_traceback(tmp_path):
    result = CliRunner().invoke(app, ["--debug", "predict", str(tmp_path / "none"), "x.npy"])
    assert result.exit_code == 1 and "no such checkpoint" in str(result.exception)


def test_convert(tmp_path, recording):
    """A released pretraining checkpoint, rebuilt here from a native one under the released names."""
    config = TinyMyoConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=24, patch_size=10
    )
    native = TinyMyoForPreTraining(config).state_dict()
    renamed = {
        name.replace("tinymyo.", "")
        .replace("patch_embedding", "patch_embedding.patch_embed.proj")
        .replace("layers.", "blocks.")
        .replace("attention.", "attn.")
        .replace("decoder", "model_head.decoder_pred"): value.clone()
        for name, value in native.items()
    }
    kernel = "patch_embedding.patch_embed.proj.weight"
    renamed[kernel] = renamed[kernel][:, None, None]
    renamed["mask_token"] = renamed["mask_token"][None, None]
    source = tmp_path / "released.safetensors"
    save_file({name: value.contiguous() for name, value in renamed.items()}, source)

    out = tinymyo(
        "convert", source, tmp_path / "native", "--position-embedding", "none", "--measure", recording,
        "--sampling-rate", 200,
    ).stdout  # fmt: skip
    assert "position_embedding_type=rope" in out and "TinyMyoForPreTraining" in out
    assert TinyMyoConfig.from_pretrained(tmp_path / "native").position_embedding_type == "none"
    assert "no such file" in refused("convert", tmp_path / "missing.safetensors", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_train_and_prepare_refuse_what_cannot_work(tmp_path):
    output = ("--output_dir", tmp_path / "run", "--report_to", "none")
    assert "there is no recipe nothing" in refused("train", "nothing")
    assert "did you mean learning_rate" in refused("train", "synthetic", *output, "--lerning_rate", "1")
    said = refused("train", "uci_emg_200", *output)
    assert "uci_emg needs data_dir (`--data_dir FOLDER`)" in said
    assert "`tinymyo inspect uci_emg --download --data-dir FOLDER`" in said
    width = refused("train", "uci_emg_200", *output, "--model_config.hidden_sise", 24)
    assert "no field 'hidden_sise'; did you mean hidden_size?" in width  # before the corpus is looked for
    missing = ("--data_dir", tmp_path / "missing.zip")
    assert "missing.zip" in refused("train", "uci_emg_200", *output, "--overwrite", *missing)
    assert "is neither a builder" in refused("train", "synthetic", *output, "--dataset", "nothing", "--overwrite")
    options = ("--dataset_config.strides", 50)
    assert "synthetic has no option strides" in refused("train", "synthetic", *output, "--overwrite", *options)
    assert "synthetic has no option strides" in refused("prepare", "synthetic", "--out", tmp_path / "p", "--strides", 5)
    assert "window_length" in refused("prepare", "synthetic", "--out", tmp_path / "p", "--window_length", "210")
    assert not (tmp_path / "p").exists()


def test_help_lists_the_corpora():
    from dataset_builders import BUILDERS

    for command in ("prepare", "inspect"):
        text = tinymyo(command, "--help").output
        assert all(name in text for name in BUILDERS) and "--download" in text


def test_inspect_a_file(recording, tmp_path):
    samples = np.load(recording)
    samples[3] = 7
    np.save(recording, samples)
    out = tinymyo("inspect", recording, "--sampling-rate", 200, "--plot", tmp_path / "new/picture.png").stdout
    assert "channel 3 is dead" in out and "10 s" in out and "recording.npy are drawn in" in out
    assert (tmp_path / "new/picture.png").read_bytes().startswith(b"\x89PNG")
    some = tinymyo("inspect", recording, "--sampling-rate", 200, "--channels", "0,1").stdout
    assert "Nothing conspicuous" in some and "channels    2" in some


def test_inspect_labels_of_a_table(tmp_path):
    rows = [
        f"{a},{b},{'rest' if i < 600 else 'fist'}"
        for i, (a, b) in enumerate(np.random.default_rng(0).normal(size=(1000, 2)))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["x,y,what", *rows]))
    out = tinymyo("inspect", tmp_path / "a.csv", "--label-column", "what", "--sampling-rate", 100).stdout
    assert [line.split()[:3] for line in out.splitlines() if line.startswith(("rest", "fist"))] == [
        ["fist", "1", "400"],
        ["rest", "1", "600"],
    ]


SMALL = ("--num_subjects", 4, "--num_sessions", 1, "--num_repetitions", 1, "--hold", 1.5)


def test_prepare_inspect_and_push(tmp_path, monkeypatch):
    out = tinymyo("inspect", "synthetic", "--limit", 2, *SMALL, "--channels", "0,1,2").stdout
    assert "4 (2 of them read)" in out and "wrist flexion" in out and "4: 01 to 04" in out
    folder = tmp_path / "prepared"
    tinymyo("prepare", "synthetic", "--out", folder, *SMALL)
    assert "prepared: filtered" in tinymyo("inspect", folder, "--limit", 5).stdout
    assert "channels: " in refused("inspect", folder, "--channels", "0,1")
    sent = []
    monkeypatch.setattr("dataset_builders.push.push", lambda plan: sent.append(plan) or "https://hub/me/emg")
    out = tinymyo("push", folder, "me/emg").stdout
    assert "Nothing has been sent" in out and "apache-2.0" in out and "me/emg (private)" in out and not sent
    assert "Uploaded to https://hub/me/emg" in tinymyo("push", folder, "me/emg", "--yes", "--public").stdout
    assert sent[0].repo_id == "me/emg" and sent[0].public
    assert "lacks an owner" in refused("push", folder, "emg")
    (folder / "README.md").unlink()
    assert "no README.md" in refused("push", folder, "me/emg", "--yes") and len(sent) == 1


def test_inspect_refuses_what_cannot_work(recording, tmp_path):
    assert "name its corpus, as in `tinymyo inspect uci_emg" in refused("inspect", tmp_path)
    (tmp_path / "metadata.csv").touch()
    assert "`tinymyo inspect emg_folder" in refused("inspect", tmp_path)
    assert "no such file or folder, nor one of the corpora" in refused("inspect", tmp_path / "missing.npy")
    assert "for one of the corpora" in refused("inspect", recording, "--protocol", "paper")
    assert "uci_emg needs data_dir" in refused("inspect", "uci_emg")
    assert "synthetic has no option key" in refused("inspect", "synthetic", "--key", "emg")


def test_download(tmp_path, monkeypatch):
    from dataset_builders.download import Download
    from dataset_builders.errors import DownloadError

    asked = []

    def fetch(downloads, folder, page, *more):
        asked.append((downloads, folder))
        raise DownloadError("no connection")

    monkeypatch.setattr("dataset_builders.download.fetch", fetch)
    files = (Download("http://127.0.0.1/a.zip", "a.zip"),)
    monkeypatch.setattr("dataset_builders.uci_emg.UciEmg.DOWNLOADS", files)
    commands = (("inspect",), ("prepare", "--out", tmp_path / "out"))
    for name, *options in commands:
        assert "no connection" in refused(name, "uci_emg", "--data-dir", tmp_path / "raw", "--download", *options)
    assert asked == [(files, tmp_path / "raw")] * 2
    monkeypatch.setattr("dataset_builders.uci_emg.UciEmg.DOWNLOADS", ())
    assert "https://archive.ics.uci.edu/dataset/481" in refused("inspect", "uci_emg", "--download")
    assert "nothing to download" in refused("inspect", "synthetic", "--download")
