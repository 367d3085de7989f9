"""`pipeline("emg-to-text")`: the text of whole recordings with time stamps, the decoders, and what is refused."""

import csv
import json

import numpy as np
import pytest
import torch
from transformers import pipeline
from typer.testing import CliRunner

from tinymyo_hf import (
    EmgCharacterTokenizer,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
)
from tinymyo_hf.charset import apply_keystrokes
from tinymyo_hf.cli import app
from tinymyo_hf.decoding import BeamSearchDecoder, DecodingError, greedy_decode
from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.signal import SignalError
from tinymyo_hf.tokenization import CharsetError

TINY = {
    "num_channels": 4, "conv_dim": [8, 8, 8], "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def noise(samples=3000, seed=0):
    return np.random.default_rng(seed).normal(size=(4, samples)).astype(np.float32)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**TINY))
    torch.nn.init.normal_(model.lm_head.weight, std=2)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    SEMGTransformerFeatureExtractor(num_channels=4, bands=(2, 2)).save_pretrained(folder)
    EmgCharacterTokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def read(checkpoint):
    return pipeline("emg-to-text", model=str(checkpoint), device="cpu")


def logits_of(checkpoint, x):
    model = SEMGTransformerForCTC.from_pretrained(checkpoint)
    with torch.no_grad():
        return model(torch.from_numpy(x)[None]).logits[0].numpy()


def test_the_text_is_that_of_one_forward_pass(read, checkpoint):
    x = noise()
    result = read(x, sampling_rate=2000)
    logits = logits_of(checkpoint, x)
    tokenizer = EmgCharacterTokenizer()
    (ids,) = greedy_decode(logits[None])
    assert len(ids) > 5 and result["keystrokes"] == tokenizer.decode(ids)
    assert result["text"] == apply_keystrokes(result["keystrokes"])
    assert [c["character"] for c in result["characters"]] == [tokenizer.decode([i]) for i in ids]
    best = logits.argmax(-1)
    first = [f for f in range(len(best)) if best[f] != 98 and (f == 0 or best[f] != best[f - 1])]
    assert [c["time"] for c in result["characters"]] == pytest.approx([(20 * f + 40) / 2000 for f in first])


def frames_of(text, tokenizer, blank=(3, 1)):
    """Logits, confident, of a text: each character `blank[1]` frames long behind `blank[0]` blanks; and its frames."""
    labels, frames = [], []
    for i in tokenizer(text).input_ids:
        labels += [tokenizer.pad_token_id] * blank[0]
        frames.append(len(labels))
        labels += [i] * blank[1]
    return 12 * np.eye(len(tokenizer))[labels], frames


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_decoders_with_frames(decoder, size):
    tokenizer = EmgCharacterTokenizer()
    text = "Hello\b\bp me,\n⇧Yes"
    logits, frames = frames_of(text, tokenizer, (2, 2))
    one = timed_decoder(tokenizer, decoder)()
    found = [pair for first in range(0, len(logits), size) for pair in one.push(logits[first : first + size])]
    found += one.finish()
    assert tokenizer.decode([i for i, _ in found]) == tokenizer.normalize(text)
    assert [frame for _, frame in found] == frames


def test_beam_search_of_doubtful_logits():
    tokenizer = EmgCharacterTokenizer()
    logits = np.random.default_rng(0).normal(size=(80, 99)) * 3
    make = timed_decoder(tokenizer, "beam", beam_size=8, max_labels_per_step=5)
    one, live = make(), make()
    whole = one.push(logits) + one.finish()
    pieces = [pair for frame in logits for pair in live.push(frame[None])] + live.finish()
    assert whole == pieces
    expected = BeamSearchDecoder(tokenizer, beam_size=8, max_labels_per_step=5).decode(logits).ids
    assert [i for i, _ in whole] == expected
    frames = [frame for _, frame in whole]
    assert frames == sorted(frames) and frames[0] >= 0 and frames[-1] < 80
    assert timed_decoder(tokenizer, "beam")().finish() == []


def test_decoders_refused(tmp_path):
    tokenizer = EmgCharacterTokenizer()
    for arguments, options, message in (
        (("viterbi",), {}, "decoder='viterbi': unknown; use one of greedy, beam"),
        (("greedy", "lm.arpa"), {"beam_size": 3}, "lm_path, beam_size: greedy decoding"),
        (("beam",), {"beam_size": 0}, "beam_size is 0"),
    ):
        with pytest.raises(DecodingError, match=message):
            timed_decoder(tokenizer, *arguments, **options)


def test_decoder_of_the_pipeline(read, checkpoint):
    x = noise()
    expected = BeamSearchDecoder(EmgCharacterTokenizer(), beam_size=4).decode(logits_of(checkpoint, x)).ids
    found = read(x, sampling_rate=2000, decoder="beam", beam_size=4)
    assert found["keystrokes"] == EmgCharacterTokenizer().decode(expected)
    assert [c["time"] for c in found["characters"]] == sorted(c["time"] for c in found["characters"])
    assert read(x, sampling_rate=2000)["keystrokes"] == EmgCharacterTokenizer().decode(
        greedy_decode(logits_of(checkpoint, x)[None])[0]
    )


def test_forms_of_input(read, tmp_path):
    x = noise(1500)
    expected = read(x, sampling_rate=2000)
    np.savez(tmp_path / "x.npz", emg=x.T, fs=2000)
    assert read({"raw": x, "sampling_rate": 2000}) == expected
    assert read(tmp_path / "x.npz") == read(str(tmp_path / "x.npz")) == expected
    assert read([x, noise(900, seed=1), tmp_path / "x.npz"], sampling_rate=2000)[::2] == [expected, expected]
    assert read(np.stack([x, x]), sampling_rate=2000) == [expected, expected]
    assert read([], sampling_rate=2000) == []
    turned = read(x[:, :41], sampling_rate=2000)
    assert len(turned["characters"]) <= 1  # a single frame
    slow = read(np.repeat(x, 2, axis=1), sampling_rate=4000, on_rate_mismatch="resample")
    assert slow["characters"][-1]["time"] <= 1500 / 2000


def test_nothing_typed(read, checkpoint):
    with torch.no_grad():
        read.model.lm_head.bias[98] = 1e4
    assert read(noise(), sampling_rate=2000) == {"text": "", "keystrokes": "", "characters": []}


def test_saved_pipeline_loads_again(read, tmp_path):
    read.save_pretrained(tmp_path / "saved")
    again = pipeline("emg-to-text", model=str(tmp_path / "saved"), device="cpu")
    assert again(noise(), sampling_rate=2000) == read(noise(), sampling_rate=2000)


def test_what_is_refused(read, tmp_path):
    x = noise()
    np.save(tmp_path / "three.npy", x[:3])
    for recording, options, message in (
        (x, {}, "sampling rate is not known; pass sampling_rate.*2000 Hz"),
        (x, {"sampling_rate": 1000}, "sampled at 1000 Hz"),
        (x[:3], {"sampling_rate": 2000}, "3 channels, but the model takes 4"),
        (x.T, {"sampling_rate": 2000}, "transpose"),
        (tmp_path / "three.npy", {"sampling_rate": 2000}, "three.npy: 3 channels.*4 are expected"),
        (x[:, :40], {"sampling_rate": 2000}, "recording: 40 samples at 2000 Hz, fewer than the 41 of a frame"),
        (x * np.nan, {"sampling_rate": 2000}, "missing"),
        (x, {"sampling_rate": 2000, "stride": 100}, "stride: recordings run whole"),
        (x, {"sampling_rate": 2000, "batch_size": 2}, "batch_size=2: recordings run one by one"),
        (x, {"sampling_rate": 2000, "decoder": "best"}, "decoder='best'"),
    ):
        with pytest.raises(ValueError, match=message):
            read(recording, **options)


def test_parts_that_do_not_belong_together(checkpoint):
    model = SEMGTransformerForCTC.from_pretrained(checkpoint)
    extractor = SEMGTransformerFeatureExtractor.from_pretrained(checkpoint)
    parts = {"model": model, "feature_extractor": extractor, "tokenizer": EmgCharacterTokenizer(characters="ab")}
    with pytest.raises(CharsetError, match="99 outputs.*3 ids"):
        pipeline("emg-to-text", device="cpu", **parts)
    with pytest.raises(SignalError, match='but emg-classification needs.*use pipeline."emg-to-text"'):
        pipeline("emg-classification", device="cpu", **parts)


def tinymyo(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def test_predict_prints_the_text(read, checkpoint, tmp_path):
    np.save(tmp_path / "x.npy", noise())
    expected = read(noise(), sampling_rate=2000)
    command = ("predict", checkpoint, tmp_path / "x.npy", "--sampling-rate", 2000, "--output")
    out = tinymyo(*command, tmp_path / "x.json").stdout
    assert out.startswith(expected["text"]) and expected["keystrokes"] in out
    assert f"{len(expected['characters'])} characters written to" in out
    assert json.loads((tmp_path / "x.json").read_text()) == expected
    tinymyo(*command, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        assert [row["character"] for row in csv.DictReader(file)] == list(expected["keystrokes"])
    assert "change the name" in tinymyo(*command, tmp_path / "x.npy", code=2).stderr
    assert "run whole" in tinymyo(*command, tmp_path / "x.json", "--stride", 5, code=2).stderr
    (checkpoint / "vocab.json").unlink()
    assert "vocab.json" in tinymyo(*command, tmp_path / "x.json", code=2).stderr
