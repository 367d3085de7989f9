"""The feature extractor of the sEMG transformers: what it saves, returns and refuses."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, DataCollatorWithPadding

from dataset_builders.base import make_builder
from tinymyo_hf import SEMGTransformerFeatureExtractor, TinyMyoFeatureExtractor
from tinymyo_hf.semg_transformer.preprocessing_semg_transformer import SEMGInputError


def noise(channels=32, samples=500, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, samples)).astype(np.float32)


def test_recordings_are_passed_on_as_they_are():
    x = noise()
    batch = SEMGTransformerFeatureExtractor()(x, sampling_rate=2000, return_tensors="pt")
    assert batch["input_values"].dtype == torch.float32 and batch["attention_mask"].dtype == torch.int64
    assert torch.equal(batch["input_values"], torch.from_numpy(x)[None])
    assert batch["attention_mask"].shape == (1, 500) and batch["attention_mask"].all()
    integers = (1000 * x).astype(np.int16)
    again = SEMGTransformerFeatureExtractor()(integers, sampling_rate=2000, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(again[0], integers)


def test_batch_is_padded_on_the_right_and_never_cut():
    extractor = SEMGTransformerFeatureExtractor(padding_value=-3.0)
    recordings = [noise(samples=n, seed=n) for n in (210, 399, 380)]
    batch = extractor(recordings, sampling_rate=2000, return_tensors="pt")
    assert batch["input_values"].shape == (3, 32, 399)
    for i, recording in enumerate(recordings):
        n = recording.shape[1]
        np.testing.assert_array_equal(batch["input_values"][i, :, :n], recording)
        assert (batch["input_values"][i, :, n:] == -3).all()
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (399 - n)
    lists = extractor(recordings, sampling_rate=2000, padding=False)
    assert [array.shape[1] for array in lists["input_values"]] == [210, 399, 380]
    for wrong in ({"truncation": True}, {"max_length": 300}, {"padding": "max_length"}, {"pad_to_multiple_of": 20}):
        with pytest.raises(SEMGInputError, match=rf"{next(iter(wrong))}.*never cut short"):
            extractor(recordings, sampling_rate=2000, **wrong)


def test_padding_by_data_collators():
    extractor = SEMGTransformerFeatureExtractor()
    recordings = [noise(samples=490), noise(samples=200)]
    examples = [{"input_values": x, "label": label} for x, label in zip(recordings, (2, 0), strict=True)]
    batch = DataCollatorWithPadding(extractor)(examples)
    expected = extractor(recordings, sampling_rate=2000, return_tensors="pt")
    assert torch.equal(batch["input_values"], expected["input_values"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["labels"].tolist() == [2, 0]
    columns = {"input_values": recordings, "attention_mask": [[1] * 480 + [0] * 10, [1] * 200]}
    assert extractor.pad(columns, return_tensors="np")["attention_mask"].sum(1).tolist() == [480, 200]
    silent = SEMGTransformerFeatureExtractor(return_attention_mask=False)
    assert "attention_mask" not in silent(recordings, sampling_rate=2000)


def test_forms_of_input_are_equivalent():
    extractor, x = SEMGTransformerFeatureExtractor(num_channels=4, bands=(2, 2)), noise(4, 60)
    expected = extractor(x, sampling_rate=2000, return_tensors="np")["input_values"]
    for form in ([x], x[None], x.tolist(), [x.tolist()], list(x), (x,), torch.from_numpy(x), [torch.from_numpy(x)]):
        np.testing.assert_array_equal(
            extractor(form, sampling_rate=2000, return_tensors="np")["input_values"], expected
        )


def test_bands_are_rings_that_turn_by_themselves():
    x = np.arange(7)[:, None] * 10.0 + np.arange(50)
    extractor = SEMGTransformerFeatureExtractor(num_channels=7, bands=(4, 3), rotation=(1, -1))
    turned = extractor.preprocess(x, 2000)
    # Electrode 0 of the left band is given as electrode 1, electrode 0 of the right one (channel 4) as its last.
    assert turned[:, 0].tolist() == [30, 0, 10, 20, 50, 60, 40]
    np.testing.assert_array_equal(turned[1], x[0])
    back = SEMGTransformerFeatureExtractor(num_channels=7, bands=(4, 3), rotation=(-1, 1))
    np.testing.assert_array_equal(back.preprocess(turned, 2000), x)


def test_sampling_rate_is_never_guessed(monkeypatch):
    extractor, x = SEMGTransformerFeatureExtractor(), noise()
    with pytest.raises(SEMGInputError, match="a.npy: sampled at 1000 Hz.*trained at 2000 Hz.*resample"):
        extractor.preprocess(x, 1000, "a.npy")
    with pytest.raises(SEMGInputError, match="sampling_rate=-1"):
        extractor.preprocess(x, -1)
    warnings = []
    monkeypatch.setattr("tinymyo_hf.semg_transformer.preprocessing_semg_transformer.logger.warning", warnings.append)
    np.testing.assert_array_equal(extractor.preprocess(x, None), x)
    assert "2000 Hz is assumed" in warnings[0]


@pytest.mark.parametrize("rate", [1000, 2048])
def test_resampled_on_request(rate):
    extractor = SEMGTransformerFeatureExtractor(on_rate_mismatch="resample")
    phase = np.arange(32)[:, None]
    wave = lambda at, count: 5 + np.sin(2 * np.pi * 90 * np.arange(count) / at + phase)  # noqa: E731
    y = extractor.preprocess(wave(rate, rate), rate)
    assert y.shape == (32, 2000) and y.dtype == np.float32
    np.testing.assert_allclose(y[:, 100:-100], wave(2000, 2000)[:, 100:-100], atol=5e-3)
    assert extractor.preprocess(wave(rate, 333), rate).shape[1] == round(333 * 2000 / rate)


def test_round_trip_is_exact(tmp_path):
    extractor = SEMGTransformerFeatureExtractor(
        num_channels=np.int64(24), sampling_rate=np.float32(1000), bands=np.array([16, 8]), rotation=(3, -1)
    )
    extractor.save_pretrained(tmp_path)
    for loader in (SEMGTransformerFeatureExtractor, AutoFeatureExtractor):
        again = loader.from_pretrained(tmp_path)
        assert type(again) is SEMGTransformerFeatureExtractor
        assert again.to_dict() == extractor.to_dict()
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (saved["bands"], saved["rotation"], saved["num_channels"]) == ([16, 8], [3, -1], 24)
    assert SEMGTransformerFeatureExtractor().to_dict().items() >= {
        "num_channels": 32, "sampling_rate": 2000, "bands": [16, 16], "rotation": [0, 0], "on_rate_mismatch": "error",
    }.items()  # fmt: skip


def test_of_prepared_corpora():
    typing = make_builder("synthetic", preset="typing").extractor
    assert SEMGTransformerFeatureExtractor.from_preprocessing(typing).to_dict() == (
        SEMGTransformerFeatureExtractor().to_dict()
    )
    raw = {"band_pass": None, "notch_frequencies": (), "normalization": "none"}
    corpus = TinyMyoFeatureExtractor(feature_size=12, sampling_rate=1000, on_rate_mismatch="resample", **raw)
    extractor = SEMGTransformerFeatureExtractor.from_preprocessing(corpus)
    assert (extractor.bands, extractor.sampling_rate, extractor.on_rate_mismatch) == ([6, 6], 1000, "resample")
    assert SEMGTransformerFeatureExtractor.from_preprocessing(corpus, bands=(8, 4)).bands == [8, 4]
    for change, message in (
        ({"band_pass": (40, None)}, r"band_pass=\[40.0, None\].*prepare it with.*band_pass=None"),
        ({"normalization": "zscore"}, "normalization='zscore'"),
        ({"notch_frequencies": (50,)}, "notch_frequencies"),
        ({"filter_rate": 4000}, "filter_rate=4000"),
        ({"gain": 2.0, "soft_limit": 3.0}, "gain=2.0, soft_limit=3.0"),
        ({"feature_size": 31}, "31 channels cannot be shared evenly.*bands"),
        ({"feature_size": None}, "None channels"),
    ):
        changed = TinyMyoFeatureExtractor(**{"feature_size": 32, "sampling_rate": 2000} | raw | change)
        with pytest.raises(SEMGInputError, match=message):
            SEMGTransformerFeatureExtractor.from_preprocessing(changed)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bands": (16, 15)}, r"bands=\[16, 15\].*num_channels=32"),
        ({"bands": (32, 0)}, r"bands=\[32, 0\]"),
        ({"bands": ()}, r"bands=\[\]"),
        ({"feature_size": 16}, "feature_size too, which is 16"),
        ({"bands": 16}, "bands=16: give a list"),
        ({"rotation": (1,)}, r"rotation=\[1\].*bands=\[16, 16\]"),
        ({"rotation": (0.5, 0)}, "rotation=.*whole numbers"),
        ({"sampling_rate": "2000"}, "sampling_rate='2000'"),
        ({"sampling_rate": 0}, "sampling_rate=0"),
        ({"on_rate_mismatch": "ignore"}, "on_rate_mismatch='ignore'.*resample"),
        ({"padding_side": "left"}, "padding_side='left'"),
        ({"rotate": (1, 1)}, "unknown field 'rotate'"),
    ],
)
def test_contradicting_fields_are_refused_at_construction(fields, message):
    with pytest.raises(SEMGInputError, match=message):
        SEMGTransformerFeatureExtractor(**fields)


def test_refused_recordings():
    extractor = SEMGTransformerFeatureExtractor()
    broken = noise()
    broken[3, 70], broken[5, 80] = np.nan, np.inf
    for bad, message in (
        (noise(channels=16), r"num_channels=32, got shape \(16, 500\); give the electrodes"),
        (noise().T, "transpose it"),
        (noise(samples=0), "at least one sample"),
        (noise()[0], r"got shape \(500,\)"),
        ([noise(), broken], "recording 1: 2 missing.*first at sample 70 of channel 3"),
        ([], "list is empty"),
        ([[1.0, 2.0], [3.0]], "not a rectangular array"),
        (np.full((32, 50), "x"), "are not real numbers"),
        (noise() * 1j, "complex64 are not real numbers"),
        (noise().astype(np.float64) * 1e80, "overflow float32"),
    ):
        with pytest.raises(SEMGInputError, match=message):
            extractor(bad, sampling_rate=2000)
