"""`tinymyo_hf.onnx`: what transformers' pipelines return, without torch and transformers; batches; what is refused."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx_stubs import STUBS
from tiny_speech import utterance
from transformers import pipeline as library_pipeline
from typer.testing import CliRunner

import tinymyo_hf
from export.metadata import describe
from export.onnx import export_onnx
from tinymyo_hf import in_context
from tinymyo_hf.audio import griffin_lim
from tinymyo_hf.cli import app
from tinymyo_hf.lexicon import write_lexicon
from tinymyo_hf.onnx import OnnxModel, OnnxModelError, is_export, pipeline
from tinymyo_hf.signal import SignalError

WITHOUT_TORCH = """
import pickle, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "huggingface_hub", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from tinymyo_hf.onnx import pipeline
calls = pickle.load(open("calls.pickle", "rb"))
results = [pipeline(model=folder)(recordings, **settings) for folder, recordings, settings in calls]
pickle.dump(results, open("results.pickle", "wb"))
"""


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(size=(4, samples)).astype(np.float32)


def bursts(samples, seed=0):
    return noise(samples, seed) * (1 + 4 * (np.arange(samples) // 150 % 3 == 1))


SESSION = in_context([utterance(length, seed) for seed, length in enumerate((400, 300, 400))])
CALLS = {
    "classification": [
        (noise(600), {"sampling_rate": 200}),
        ([noise(430), noise(250, 1)], {"sampling_rate": 200, "stride": 20, "top_k": 2, "batch_size": 7}),
        (noise(3000), {"sampling_rate": 1000, "on_rate_mismatch": "resample", "window_length": 200}),
    ],
    "regression": [
        (noise(613), {"sampling_rate": 200}),
        ([noise(60), noise(230, 1)], {"sampling_rate": 200, "stride": 10, "batch_size": 4}),
    ],
    "events": [
        (bursts(1730), {"sampling_rate": 2000, "return_probabilities": True}),
        ([bursts(1005), bursts(30, 1), bursts(430, 2)], {"sampling_rate": 2000, "threshold": 0.8, "debounce": 0.0}),
    ],
    "speech": [
        (SESSION, {"sampling_rate": 1000, "batch_size": 2}),
        (utterance(500), {"sampling_rate": 1000, "decoder": "beam", "beam_size": 5}),
    ],
    "voice": [(SESSION, {"sampling_rate": 1000, "batch_size": 3}), (utterance(300), {"sampling_rate": 1000})],
    "typing": [
        (noise(3000), {"sampling_rate": 2000}),
        ([noise(41, 1), noise(1500)], {"sampling_rate": 2000, "decoder": "beam", "beam_size": 5}),
    ],
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {name: stub.save_export(folder / name) for name, stub in STUBS.items()}


@pytest.fixture(scope="module")
def without_torch(exports):
    """The results of all calls, of a process that can import neither torch nor transformers."""
    folder = exports["speech"].parent
    order = [(name, *call) for name, calls in CALLS.items() for call in calls]
    with open(folder / "calls.pickle", "wb") as file:
        pickle.dump([(str(exports[name]), *call) for name, *call in order], file)
    environment = os.environ | {"PYTHONPATH": str(Path(tinymyo_hf.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with open(folder / "results.pickle", "rb") as file:
        results = pickle.load(file)
    return {name: [r for r, (of, *_) in zip(results, order, strict=True) if of == name] for name in CALLS}


def by_the_library(name, monkeypatch):
    """The pipeline of transformers with the stub's function for the forward pass of its model."""
    stub = STUBS[name]
    model = stub.model_class(stub.config).eval()

    def forward(input_values, attention_mask=None):
        return SimpleNamespace(**{output: stub.forward(input_values, output) for output in stub.outputs})

    monkeypatch.setattr(model, "forward", forward)
    monkeypatch.setattr(
        "tinymyo_hf.pipelines.text.session_logits", lambda _, samples: stub.forward(torch.from_numpy(samples))
    )
    parts = {"feature_extractor": stub.extractor, "tokenizer": stub.tokenizer}
    return library_pipeline(stub.task, model=model, device="cpu", **parts)


def assert_alike(found, expected):
    if isinstance(expected, dict) and "audio" in expected:  # Griffin-Lim makes much of a rounding
        np.testing.assert_allclose(found["audio"], griffin_lim(found["spectrogram"]), atol=1e-4)
        found, expected = ({**one, "audio": len(one["audio"])} for one in (found, expected))
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_alike(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5)
    else:
        assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("name", STUBS)
def test_results_are_those_of_the_library(name, without_torch, monkeypatch):
    predict = by_the_library(name, monkeypatch)
    for found, (recordings, settings) in zip(without_torch[name], CALLS[name], strict=True):
        expected = predict(recordings, **settings)
        assert_alike(found, expected)
        if name == "events":
            assert sum(len(one["events"]) for one in (found if isinstance(found, list) else [found])) > 3
        elif name in ("speech", "typing"):
            assert any(one["text"] for one in (found if isinstance(found, list) else [found]))


@pytest.mark.slow
@pytest.mark.parametrize("name", STUBS)
def test_exported_networks(name, tmp_path):
    stub = STUBS[name]
    torch.manual_seed(0)
    model = stub.model_class(stub.config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    for part in filter(None, (model, stub.extractor, stub.tokenizer)):
        part.save_pretrained(tmp_path / "model")
    export_onnx(str(tmp_path / "model"), tmp_path / "export", measured=False)
    predict = library_pipeline(stub.task, model=str(tmp_path / "model"), device="cpu")
    exported = pipeline(model=tmp_path / "export")
    for recordings, settings in CALLS[name]:
        found = exported(recordings, **settings)
        assert_alike(found, predict(recordings, **settings))
        assert stub.task != "emg-to-text" or all(one["text"] for one in (found if isinstance(found, list) else [found]))


def test_forms_of_input(exports, tmp_path):
    classify = pipeline("emg-classification", exports["classification"], sampling_rate=200, stride=100)
    x = noise(600)
    expected = classify(x)
    assert len(expected["windows"]) == 6 and len(classify(x, stride=50)["windows"]) == 11
    np.savez(tmp_path / "x.npz", emg=x.T, fs=200)
    for one in (x.tolist(), list(x), {"raw": x}, tmp_path / "x.npz", str(tmp_path / "x.npz"), torch.from_numpy(x)):
        assert classify(one) == expected
    for many in ([x, tmp_path / "x.npz"], (x, x), np.stack([x, x]), [x.tolist(), x.tolist()]):
        assert classify(many) == [expected, expected]
    assert classify([]) == []

    class Recordings:
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i >= 2:
                raise IndexError(i)
            return x

    for lazily in (classify(iter([x, x])), classify(Recordings())):
        assert next(lazily) == expected and list(lazily) == [expected]


def test_windows_of_several_recordings_share_calls(exports, monkeypatch):
    detect = pipeline(model=exports["events"], batch_size=3)
    shapes, run = [], detect.model.run
    monkeypatch.setattr(detect.model, "run", lambda values: shapes.append(values.shape) or run(values))
    assert len(detect([bursts(700), bursts(730)], sampling_rate=2000)) == 2  # 4 windows, and 5 of which one is shorter
    assert shapes == [(3, 4, 400), (3, 4, 400), (2, 4, 400), (1, 4, 330)]


def test_fixed_sizes(exports, tmp_path):
    for name, recording in (("events", bursts(1730)), ("classification", noise(430))):
        length = STUBS[name].extractor.window_length
        fixed = OnnxModel(STUBS[name].save_export(tmp_path / name, batch=4, time=length))
        assert fixed.shape == (4, 4, length)
        rate = STUBS[name].extractor.sampling_rate
        found = pipeline(model=fixed)(recording, sampling_rate=rate)
        assert_alike(found, pipeline(model=exports[name])(recording, sampling_rate=rate))
    with pytest.raises(OnnxModelError, match="exported for 100 samples, but there are 200; .*--dynamic batch,time"):
        pipeline(model=fixed)(noise(430), sampling_rate=200, window_length=200)


def test_what_a_model_says_of_itself(exports):
    model = OnnxModel(exports["classification"] / "model.onnx", num_threads=1)
    assert (model.task, model.dtype, model.shape) == ("emg-classification", "fp32", (None, 4, None))
    assert model.config.id2label == {0: "rest", 1: "fist", 2: "open"} and model.config.patch_size == 10
    assert model.preprocessing.to_dict().items() <= STUBS["classification"].extractor.to_dict().items()
    assert model.vocabulary is None and OnnxModel(exports["typing"]).vocabulary.characters[:2] == ("a", "b")
    assert OnnxModel(exports["regression"]).config.id2label == {0: "LABEL_0", 1: "LABEL_1"}  # not in config.json
    values = np.stack([noise(100), noise(100, 1)])
    expected = STUBS["classification"].forward(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(model.run(values.astype(np.float64))["logits"], expected, atol=1e-5)
    assert is_export(exports["typing"]) and not is_export(exports["typing"].parent)


def test_another_preprocessing(exports):
    model = OnnxModel(exports["typing"])
    x = noise(1500)
    turned = pipeline(model=model, preprocessing=model.preprocessing.replace(rotation=[0, 0]))
    straight = pipeline(model=model)(x[[1, 0, 2, 3]], sampling_rate=2000)  # rings of two, the first of them turned
    assert turned(x, sampling_rate=2000) == straight != pipeline(model=model)(x, sampling_rate=2000)


@pytest.mark.parametrize("samples", [61, 1000, 1999, 4013])
@pytest.mark.parametrize("window_length", [81, 300, 1000])
def test_long_recordings_of_typing(exports, samples, window_length):
    """Of a model whose frames see nothing but their samples, windows change nothing."""
    read = pipeline(model=exports["typing"])
    expected = read(noise(samples), sampling_rate=2000)
    assert read(noise(samples), sampling_rate=2000, window_length=window_length) == expected


def test_frames_are_taken_from_the_middle_of_windows(exports, monkeypatch):
    read = pipeline(model=exports["typing"], window_length=401)  # 19 frames, the next window 10 later

    def run(values):  # the label of a frame is its place in the window
        return {"logits": np.eye(99, dtype=np.float32)[None, : (values.shape[2] - 41) // 20 + 1]}

    monkeypatch.setattr(read.model, "run", run)
    found = read(noise(401 + 200 + 180 + 15), sampling_rate=2000)
    places = [read.vocabulary.get_vocab()[key["character"]] for key in found["characters"]]
    assert places == [*range(14), *range(4, 14), *range(5, 19)]
    frames = [round((key["time"] * 2000 - 40) / 20) for key in found["characters"]]
    assert frames == list(range(38))


def test_recordings_that_memory_does_not_hold(exports, tmp_path, monkeypatch):
    read = pipeline(model=exports["typing"])
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}.__getitem__)
    # 2 heads, 148 frames and 4 bytes thrice make 0.53 MB, and 98 frames 0.23 MB
    with pytest.raises(
        SignalError, match="recording: 2 s at once take 0.0 GiB .*; pass window_length, .* 8000 samples"
    ):
        read(noise(3000), sampling_rate=2000)
    keys = read(noise(3000), sampling_rate=2000, window_length=2000)["keystrokes"]
    np.save(tmp_path / "x.npy", noise(3000))
    arguments = ["predict", str(exports["typing"]), str(tmp_path / "x.npy"), "--sampling-rate", "2000"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert keys in CliRunner().invoke(app, [*arguments, "--window-length", "2000"]).stdout
    with pytest.raises(SignalError, match="window_length=80: at least 81 samples"):
        read(noise(3000), sampling_rate=2000, window_length=80)


def test_words_of_the_lexicon_beside_the_model(exports, tmp_path):
    pytest.importorskip("flashlight.lib.text.decoder")
    read = pipeline(model=STUBS["speech"].save_export(tmp_path))
    with pytest.raises(ValueError, match=r"there is no lexicon.txt in .*pass lexicon_path"):
        read(utterance(), sampling_rate=1000, decoder="words")
    write_lexicon(["ab", "c"], tmp_path / "lexicon.txt")
    text = read(utterance(), sampling_rate=1000, decoder="words")["text"]
    assert text and set(text.split()) <= {"ab", "c"}


def test_exports_refused(exports, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.onnx").write_text("not a graph")
    bare = STUBS["typing"].graph()
    (tmp_path / "bare.onnx").write_bytes(bare.SerializeToString())
    for key, value in (("task", "typing"), ("dtype", "fp32"), ("config", "[]")):
        bare.metadata_props.add(key=f"tinymyo_hf.{key}", value=value)
    (tmp_path / "list.onnx").write_bytes(bare.SerializeToString())
    folder = exports["classification"]
    for arguments, message in (
        ({"model": tmp_path / "missing"}, "missing: no such folder or file"),
        ({"model": tmp_path / "empty"}, "empty: no model.onnx in it; .*tinymyo export onnx"),
        ({"model": tmp_path / "text.onnx"}, "text.onnx: onnxruntime cannot load it"),
        ({"model": tmp_path / "bare.onnx"}, "bare.onnx: its metadata has no tinymyo_hf.task"),
        ({"model": tmp_path / "list.onnx"}, "list.onnx: the tinymyo_hf.config of its metadata is no JSON object"),
        ({}, "model: give the folder"),
        ({"model": folder, "task": "emg-events"}, 'a model for emg-classification, not for emg-events: use pipeline."'),
        ({"model": folder, "task": "emg"}, "task='emg': unknown; use one of emg-classification"),
        ({"model": folder, "num_threads": 0}, "num_threads=0"),
        ({"model": folder, "providers": ["Abacus"]}, "no 'Abacus' in this onnxruntime; .*CPUExecutionProvider"),
        ({"model": folder, "batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(OnnxModelError, match=message):
            pipeline(**arguments)
    model = OnnxModel(folder)
    with pytest.raises(OnnxModelError, match="give .batch, channels, time"):
        model.run(noise(100))
    with pytest.raises(OnnxModelError, match="exported for 4 channels, but there are 3"):
        model.run(noise(100)[None, :3])


def test_a_model_without_a_head_has_no_pipeline(tmp_path):
    folder = STUBS["classification"].save_export(tmp_path)
    proto = STUBS["classification"].graph()
    describe(proto, folder, "embedding", "fp32", "")
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    assert OnnxModel(folder).run(noise(50)[None])["logits"].shape == (1, 3)
    with pytest.raises(OnnxModelError, match="a model for embedding, not for any pipeline: fine-tune it first"):
        pipeline(model=folder)
    result = CliRunner().invoke(app, ["predict", str(folder), "x.npy"])
    assert result.exit_code == 2 and "predicts nothing, it is for embedding" in result.stderr


def test_recordings_refused(exports):
    x = noise(600)
    classify, read = pipeline(model=exports["classification"]), pipeline(model=exports["typing"])
    for call, message in (
        (lambda: classify(x), "sampling rate is not known; pass sampling_rate.*200 Hz"),
        (lambda: classify(x, sampling_rate=1000), 'sampled at 1000 Hz.*on_rate_mismatch="resample"'),
        (lambda: classify(x.T, sampling_rate=200), "600 channels, but the model takes 4.*transpose"),
        (lambda: classify("missing.csv", sampling_rate=200), "missing.csv: no such file"),
        (lambda: classify(x, sampling_rate=200, top_k=0), "top_k=0"),
        (lambda: read(x, sampling_rate=2000, batch_size=2), "batch_size=2: recordings run one by one"),
        (lambda: read(x, sampling_rate=2000, stride=5), "stride: recordings run whole"),
    ):
        with pytest.raises(SignalError, match=message):
            call()
    with pytest.raises(TypeError, match="strides"):
        classify(x, sampling_rate=200, strides=10)
    with pytest.raises(SignalError, match="patch_size: the feature extractor has 20, the model 10"):
        preprocessing = classify.preprocessing.replace(patch_size=20, window_length=200)
        pipeline(model=exports["classification"], preprocessing=preprocessing)


def test_onnxruntime_is_missing(exports, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"onnxruntime is not installed; .*pip install 'tinymyo-hf\[export\]'"):
        OnnxModel(exports["typing"])
    result = CliRunner().invoke(app, ["predict", str(exports["typing"]), "x.npy"])
    assert result.exit_code == 2 and "pip install 'tinymyo-hf[export]'" in result.stderr


def test_predict_takes_exports(exports, tmp_path):
    np.save(tmp_path / "x.npy", noise(600))
    code = WITHOUT_TORCH.partition("from tinymyo_hf.onnx")[0] + (
        "from tinymyo_hf.cli import app\n"
        "from tinymyo_hf.predictions import PredictionError, predict_file\n"
        "try: predict_file('checkpoint', 'x.npy')\n"
        "except PredictionError as error: print(error)\n"
        "app()\n"
    )
    arguments = [str(exports["classification"]), "x.npy", "--sampling-rate", "200", "--output", "x.csv"]
    environment = os.environ | {"PYTHONPATH": str(Path(tinymyo_hf.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", *arguments], cwd=tmp_path, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = pipeline(model=exports["classification"])(noise(600), sampling_rate=200)
    assert (
        "checkpoint: no ONNX export, a folder with model.onnx, and checkpoints need torch"
        in done.stdout.splitlines()[0]
    )
    assert f"whole recording: {expected['label']} " in done.stdout and "11 windows written to x.csv" in done.stdout
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 12
    result = CliRunner().invoke(app, ["predict", *arguments[:1], str(tmp_path / "x.npy"), "--decoder", "beam"])
    assert result.exit_code == 2 and "for models that write text" in result.stderr
