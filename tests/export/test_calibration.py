"""Windows to calibrate on: what is read of files and prepared folders, and what is refused."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from dataset_builders.chunks import ragged_array
from dataset_builders.windows import nested_array, window_features
from export.calibration import CalibrationError, noise_windows, read_windows
from tinymyo_hf import SEMGTransformerConfig, SEMGTransformerFeatureExtractor, TinyMyoConfig, TinyMyoFeatureExtractor

NAMES = ("rest", "fist", "open")
EXTRACTOR = TinyMyoFeatureExtractor(feature_size=4, window_length=40, stride=20, patch_size=10)


def config_of(head="TinyMyoForSequenceClassification", **fields):
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return TinyMyoConfig(**{"num_channels": 4, "patch_size": 10, "architectures": [head], **labels, **fields})


CLASSIFIER = config_of()
REGRESSION = config_of("TinyMyoForRegression", target_length=8)
VALUES = np.random.default_rng(0).normal(size=(50, 4, 40)).astype(np.float32)
LABELS = np.arange(50) % 3


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch):
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield
    datasets.enable_progress_bars()


def write_folder(folder, table, features, extractor=EXTRACTOR, split="test"):
    """As `tinymyo prepare` lays one out."""
    (folder / "data").mkdir(parents=True)
    rows = datasets.Dataset(pa.table(table, schema=features.arrow_schema))
    rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    extractor.save_pretrained(folder)
    return folder


def window_columns(values, **more):
    count = len(values)
    texts = {name: pa.array(["a"] * count) for name in ("subject", "session", "recording")}
    return {
        "input_values": nested_array(values),
        **more,
        **texts,
        "repetition": pa.array(np.ones(count, np.int32)),
        "start": pa.array(np.arange(count)),
    }


def test_arrays(tmp_path):
    np.save(tmp_path / "windows.npy", VALUES.astype(np.float64))
    windows = read_windows(tmp_path / "windows.npy", EXTRACTOR, CLASSIFIER)
    np.testing.assert_array_equal(windows.values, VALUES)
    assert windows.values.dtype == np.float32 and windows.labels is None and windows.source == "windows.npy"
    np.savez(tmp_path / "windows.npz", input_values=VALUES, labels=LABELS, sampling_rate=200)
    windows = read_windows(str(tmp_path / "windows.npz"), EXTRACTOR, CLASSIFIER, limit=33)
    assert len(windows) == 33 and windows.labels.dtype == np.int64
    chosen = [np.flatnonzero((window == VALUES).all((1, 2))).item() for window in windows.values]
    assert chosen[0] == 0 and chosen[-1] == 49 and max(np.diff(chosen)) == 2  # spread over all
    np.testing.assert_array_equal(windows.labels, LABELS[chosen])
    targets = np.random.default_rng(1).normal(size=(50, 8, 3))
    np.savez(tmp_path / "targets.npz", input_values=VALUES, labels=targets)
    np.testing.assert_array_equal(
        read_windows(tmp_path / "targets.npz", EXTRACTOR, REGRESSION).labels, targets.astype(np.float32)
    )
    encoder = config_of("TinyMyoModel")  # has nothing to score
    assert read_windows(tmp_path / "windows.npz", EXTRACTOR, encoder).labels is None


def test_a_folder_of_windows_has_the_labels_of_the_model(tmp_path):
    there = ("open", "rest", "fist")
    folder = write_folder(
        tmp_path / "corpus", window_columns(VALUES, label=pa.array(LABELS)), window_features(4, 40, there)
    )
    windows = read_windows(folder, EXTRACTOR, CLASSIFIER, split="test", limit=40)
    assert len(windows) == 40 and windows.source == "corpus, split test"
    chosen = [np.flatnonzero((window == VALUES).all((1, 2))).item() for window in windows.values]
    assert chosen[0] == 0 and chosen[-1] == 49
    assert [NAMES[label] for label in windows.labels] == [there[LABELS[i]] for i in chosen]
    unnamed = TinyMyoConfig(num_channels=4, patch_size=10, num_labels=3, architectures=CLASSIFIER.architectures)
    np.testing.assert_array_equal(read_windows(folder, EXTRACTOR, unnamed, "test").labels, LABELS)
    other = config_of(id2label={0: "rest", 1: "fist", 2: "pinch"}, label2id={"rest": 0, "fist": 1, "pinch": 2})
    with pytest.raises(CalibrationError, match="label 'open' is none of the model's, rest, fist, pinch"):
        read_windows(folder, EXTRACTOR, other, "test")
    with pytest.raises(CalibrationError, match="no windows in a split 'train', only in test"):
        read_windows(folder, EXTRACTOR, CLASSIFIER)
    for field, value in (("sampling_rate", 250.0), ("normalization", "minmax")):
        trained = EXTRACTOR.replace(**{field: value})
        with pytest.raises(
            CalibrationError, match=f"prepared with {field}=.*, but the model was trained with {field}="
        ):
            read_windows(folder, trained, CLASSIFIER, "test")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CalibrationError, match="not a prepared dataset"):
        read_windows(folder, EXTRACTOR, CLASSIFIER, "test")


def test_a_folder_with_targets(tmp_path):
    targets = np.random.default_rng(1).normal(size=(50, 8, 3)).astype(np.float32)
    columns = window_columns(VALUES, targets=nested_array(targets))
    folder = write_folder(tmp_path / "corpus", columns, window_features(4, 40, target_shape=(8, 3)))
    np.testing.assert_array_equal(read_windows(folder, EXTRACTOR, REGRESSION, "test").labels, targets)
    with pytest.raises(CalibrationError, match=r"targets of shape \(50, 8, 3\), but .* = \(50, 40, 3\)"):
        read_windows(folder, EXTRACTOR, config_of("TinyMyoForRegression"), "test")


def test_stored_recordings_are_cut(tmp_path):
    """Forty recordings of 130 samples in rows of 100: one window of 120 each; a shorter one is left out."""
    raw = TinyMyoFeatureExtractor(
        feature_size=4,
        sampling_rate=2000,
        band_pass=None,
        notch_frequencies=(),
        normalization="none",
        window_length=120,
        stride=120,
    )
    lengths = [50] + [130] * 40
    rng = np.random.default_rng(0)
    recordings = [rng.normal(size=(4, length)).astype(np.float32) for length in lengths]
    rows = [(i, start) for i, length in enumerate(lengths) for start in range(0, length, 100)]
    parts = [recordings[i][:, start : start + 100] for i, start in rows]
    joined, stops = np.concatenate(parts, axis=1), np.cumsum([part.shape[1] for part in parts])
    columns = {
        "input_values": ragged_array(joined, stops - [part.shape[1] for part in parts], stops),
        "recording": pa.array([f"r{i}" for i, _ in rows]),
        "start": pa.array([start for _, start in rows]),
        "recording_length": pa.array([lengths[i] for i, _ in rows]),
    }
    features = datasets.Features(
        {
            "input_values": datasets.List(datasets.List(datasets.Value("float32")), length=4),
            "recording": datasets.Value("string"),
            "start": datasets.Value("int64"),
            "recording_length": datasets.Value("int64"),
        }
    )
    folder = write_folder(tmp_path / "typing", columns, features, raw)
    config = SEMGTransformerConfig(num_channels=4, architectures=["SEMGTransformerForCTC"])
    turned = SEMGTransformerFeatureExtractor(num_channels=4, bands=(2, 2), rotation=(1, 0))
    windows = read_windows(folder, turned, config, "test")
    assert windows.values.shape == (40, 4, 120) and windows.labels is None
    np.testing.assert_array_equal(windows.values[3], recordings[4][[1, 0, 2, 3], :120])
    with pytest.raises(CalibrationError, match="typing: .*num_channels=6, got shape"):
        read_windows(folder, SEMGTransformerFeatureExtractor(6, bands=(3, 3)), config, "test")
    with pytest.raises(CalibrationError, match="prepared with sampling_rate=2000.*trained with sampling_rate=1000"):
        read_windows(folder, SEMGTransformerFeatureExtractor(4, 1000, bands=(2, 2)), config, "test")


def filled(value):
    values = VALUES.astype(np.float64)
    values[7, 2, 5] = value
    return values


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sampling_rate": 1000}, "sampled at 1000 Hz, but the model takes windows at 200 Hz"),
        ({"sampling_rate": "fast"}, "is not one number of Hz"),
        ({"input_values": VALUES[:, :3]}, "windows of 3 channels, but the model takes 4"),
        ({"input_values": VALUES.transpose(0, 2, 1)}, "windows of 40 channels.*transpose them"),
        ({"input_values": VALUES[:, :, :35]}, "windows of 35 samples are no multiple of the model's patch_size 10"),
        ({"input_values": VALUES[:31]}, "31 windows; give at least 32"),
        ({"input_values": VALUES[0]}, r"shape \(4, 40\) and type float32; give numbers \(windows, channels, time\)"),
        ({"input_values": VALUES.astype(str)}, "give numbers"),
        ({"input_values": filled(np.nan)}, "window 7 has nan at sample 5 of channel 2"),
        ({"input_values": filled(1e39)}, "window 7 has inf"),
        ({"input_values": 0 * VALUES}, "every sample is 0; give windows of real signals"),
        ({"labels": LABELS + 1}, "window 2 has the label 3, but the model has 3, 0 to 2"),
        ({"labels": LABELS[:9]}, r"labels of shape \(9,\) for 50 windows"),
        ({"labels": LABELS + 0.5}, "give one whole number for each window"),
        ({"emg": VALUES, "input_values": None}, "it holds emg; it needs `input_values`"),
    ],
)
def test_what_does_not_suit_the_model_is_refused(tmp_path, arrays, message):
    arrays = {"input_values": VALUES} | arrays
    np.savez(tmp_path / "w.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(CalibrationError, match=message) as caught:
        read_windows(tmp_path / "w.npz", EXTRACTOR, CLASSIFIER)
    assert str(tmp_path / "w.npz") in str(caught.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for name, content in (("w.npy", b"no numbers"), ("w.npz", b"PK no archive"), ("empty.npy", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CalibrationError, match=f"{name}: cannot be read"):
            read_windows(tmp_path / name, EXTRACTOR, CLASSIFIER)
    np.savez(tmp_path / "cut.npz", input_values=VALUES)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:2000] + bytes(2000) + whole[4000:])
    with pytest.raises(CalibrationError, match="cut.npz: its input_values cannot be read"):
        read_windows(tmp_path / "cut.npz", EXTRACTOR, CLASSIFIER)
    np.save(tmp_path / "objects.npy", np.array([{}] * 3), allow_pickle=True)
    with pytest.raises(CalibrationError, match="objects.npy: cannot be read"):
        read_windows(tmp_path / "objects.npy", EXTRACTOR, CLASSIFIER)
    with pytest.raises(CalibrationError, match="nowhere.npy: not there"):
        read_windows(tmp_path / "nowhere.npy", EXTRACTOR, CLASSIFIER)
    (tmp_path / "w.csv").write_text("1,2")
    with pytest.raises(CalibrationError, match="neither a folder made by `tinymyo prepare` nor"):
        read_windows(tmp_path / "w.csv", EXTRACTOR, CLASSIFIER)
    np.save(tmp_path / "w.npy", VALUES)
    with pytest.raises(CalibrationError, match="limit=5: at least 32"):
        read_windows(tmp_path / "w.npy", EXTRACTOR, CLASSIFIER, limit=5)


def test_channels_and_lengths_follow_the_model(tmp_path):
    np.save(tmp_path / "w.npy", VALUES)
    any_number = EXTRACTOR.replace(feature_size=None)
    for fields in ({"channel_fusion": "mean"}, {"head": "TinyMyoForPreTraining"}):
        assert len(read_windows(tmp_path / "w.npy", any_number, config_of(num_channels=9, **fields))) == 50
    with pytest.raises(CalibrationError, match="the model takes 9"):
        read_windows(tmp_path / "w.npy", any_number, config_of(num_channels=9))
    events = config_of("TinyMyoForFrameClassification", stem="convolution", stem_kernel_size=41)
    with pytest.raises(CalibrationError, match="windows of 40 samples are shorter than a frame"):
        read_windows(tmp_path / "w.npy", EXTRACTOR, events)


def test_noise_has_the_shape_of_the_models_windows():
    noise = noise_windows(EXTRACTOR, CLASSIFIER)
    assert noise.values.shape == (32, 4, 40) and noise.values.dtype == np.float32
    np.testing.assert_array_equal(noise.values, noise_windows(EXTRACTOR, CLASSIFIER).values)
    assert noise_windows(EXTRACTOR, CLASSIFIER, samples=70).values.shape == (32, 4, 70)
    config = SEMGTransformerConfig()
    values = noise_windows(SEMGTransformerFeatureExtractor(), config, count=2).values
    assert values.shape[:2] == (2, 32) and config.num_frames(values.shape[2]) > 50
