"""What inference needs beside a model, in a process that can import neither torch nor transformers, against the same
through the library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinymyo_hf
from tinymyo_hf import (
    BeamSearchDecoder,
    EmgCharacterTokenizer,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerPreprocessing,
    TinyMyoFeatureExtractor,
    TinyMyoPreprocessing,
    greedy_decode,
)
from tinymyo_hf.audio import griffin_lim
from tinymyo_hf.event_detection import detect_events

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""
SCRIPT = """
import json
from pathlib import Path
import numpy as np
import tinymyo_hf
from tinymyo_hf import BeamSearchDecoder, CharacterVocabulary, greedy_decode
from tinymyo_hf import SEMGTransformerPreprocessing, TinyMyoPreprocessing
from tinymyo_hf.audio import griffin_lim
from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.event_detection import detect_events
from tinymyo_hf.vocoder import VocoderError, load_vocoder
import tinymyo_hf.decoding_alignment, tinymyo_hf.decoding_words, tinymyo_hf.recordings, tinymyo_hf.speech_text

x, logits, spectrum = (np.load("inputs.npz")[name] for name in ("x", "logits", "spectrum"))
emg = TinyMyoPreprocessing.from_dict(json.loads(Path("emg/preprocessor_config.json").read_text()))
windows, starts = emg.windows(emg.preprocess(x, 500))
bands = SEMGTransformerPreprocessing.from_dict(json.loads(Path("bands/preprocessor_config.json").read_text()))
vocabulary = CharacterVocabulary.from_file("text/vocab.json")
decoder = timed_decoder(vocabulary)()
events = detect_events(1 / (1 + np.exp(-logits)), np.arange(len(logits)) / 10, list("abcd"))
np.savez(
    "outputs.npz", windows=windows, starts=starts, bands=bands.preprocess(x, 500), audio=griffin_lim(spectrum),
    greedy=greedy_decode(logits[None], blank=vocabulary.pad_token_id)[0],
    timed=decoder.push(logits), beam=BeamSearchDecoder(vocabulary).decode(logits).ids,
    events=events.labels, peaks=events.scores, encoded=vocabulary.encode("Cab\\u0301!"),
    grouped=vocabulary.decode(logits.argmax(1).tolist(), group_tokens=True),
)
try:
    load_vocoder("folder")
except VocoderError as error:
    assert "name no vocoder" in str(error)
else:
    raise AssertionError("a network was loaded")
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def run(code, folder, **environment):
    environment = {**os.environ, "PYTHONPATH": str(Path(tinymyo_hf.__file__).parents[1]), **environment}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a feature extractor of each kind, a tokenizer, and inputs; and the four of them."""
    folder = tmp_path_factory.mktemp("saved")
    rng = np.random.default_rng(0)
    emg = TinyMyoFeatureExtractor(feature_size=4, on_rate_mismatch="resample", normalization_scope="window")
    bands = SEMGTransformerFeatureExtractor(4, 2000, bands=(2, 2), rotation=(1, 0), on_rate_mismatch="resample")
    tokenizer = EmgCharacterTokenizer(characters="abc")
    emg.save_pretrained(folder / "emg")
    bands.save_pretrained(folder / "bands")
    tokenizer.save_pretrained(folder / "text")
    inputs = {
        "x": rng.normal(size=(4, 1500)).astype(np.float32),
        "logits": 2 * rng.normal(size=(30, 4)).astype(np.float32),
        "spectrum": rng.normal(size=(6, 80)).astype(np.float32),
    }
    np.savez(folder / "inputs.npz", **inputs)
    return folder, emg, bands, tokenizer, inputs


def test_same_results_where_torch_cannot_be_imported(saved):
    folder, emg, bands, tokenizer, inputs = saved
    run(BLOCKED + SCRIPT, folder)
    found = np.load(folder / "outputs.npz")
    x, logits = inputs["x"], inputs["logits"]
    expected = emg(x, sampling_rate=500, windowed=True, return_tensors="np")["input_values"]
    assert found["windows"].shape == (9, 4, 200)
    np.testing.assert_array_equal(found["windows"], expected)
    assert found["starts"].tolist() == list(range(0, 401, 50))
    np.testing.assert_array_equal(found["bands"], bands(x, sampling_rate=500, return_tensors="np")["input_values"][0])
    np.testing.assert_array_equal(found["audio"], griffin_lim(inputs["spectrum"]))
    ids = greedy_decode(logits[None], blank=3)[0]
    assert found["greedy"].tolist() == ids == found["timed"][:, 0].tolist() and len(ids) > 5
    assert found["beam"].tolist() == BeamSearchDecoder(tokenizer).decode(logits).ids
    assert found["grouped"] == tokenizer.decode(ids)
    assert found["encoded"].tolist() == tokenizer("Cab\u0301!").input_ids == [2, 0, 1]
    events = detect_events(1 / (1 + np.exp(-logits)), np.arange(30) / 10, list("abcd"))
    np.testing.assert_array_equal(found["events"], events.labels)
    np.testing.assert_array_equal(found["peaks"], events.scores)


@pytest.mark.parametrize("environment", [{"TINYMYO_HF_REGISTER": "0"}, {}])
def test_registering_can_be_switched_off(tmp_path, environment):
    absent = "" if environment else "import sys; sys.modules['torch'] = None\n"
    code = "import sys, tinymyo_hf; print([m for m in ('torch', 'transformers') if sys.modules.get(m)])"
    assert run(absent + code, tmp_path, **environment).strip() == "[]"


def test_slow_imports_wait_for_a_filter(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from tinymyo_hf import SEMGTransformerPreprocessing, TinyMyoPreprocessing\n"
        "SEMGTransformerPreprocessing(4, bands=(2, 2)).preprocess(np.eye(4), 2000)\n"
        "TinyMyoPreprocessing(band_pass=None, notch_frequencies=()).preprocess(np.eye(4), 200)\n"
        "print('scipy.signal' in sys.modules)"
    )
    assert run(code, tmp_path, TINYMYO_HF_REGISTER="0").strip() == "False"


def test_saved_fields_are_those_of_the_preprocessing(saved):
    folder, emg, bands, *_ = saved
    for extractor, name, core in ((emg, "emg", TinyMyoPreprocessing), (bands, "bands", SEMGTransformerPreprocessing)):
        preprocessing = core.from_dict(json.loads((folder / name / "preprocessor_config.json").read_text()))
        assert type(preprocessing) is core
        assert preprocessing.to_dict().items() <= extractor.to_dict().items()
        assert core.from_dict(preprocessing.to_dict()).to_dict() == preprocessing.to_dict()
        with pytest.raises(ValueError, match=f"unknown field 'gain_' of {core.__name__}"):
            core.from_dict(preprocessing.to_dict() | {"gain_": 1})
        assert (preprocessing.num_channels, preprocessing.recording_rate) == (4, extractor.sampling_rate)
        other = extractor.replace(on_rate_mismatch="error", return_attention_mask=False)
        assert type(other) is type(extractor) and not other.return_attention_mask
        assert {k: v for k, v in other.to_dict().items() if v != extractor.to_dict()[k]} == {
            "on_rate_mismatch": "error",
            "return_attention_mask": False,
        }
        assert preprocessing.replace(padding_value=-1.0).padding_value == -1.0 and preprocessing.padding_value == 0
