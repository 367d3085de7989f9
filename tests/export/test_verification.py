"""What counts as the same, and what is refused."""

import numpy as np
import onnx
import pytest
from linear_models import (
    BIAS,
    CHANNELS,
    LABELS,
    WEIGHT,
    HidingForPreTraining,
    LinearForFrameClassification,
    LinearForRegression,
    LinearForSequenceClassification,
    hiding_graph,
    linear_graph,
)

from export.calibration import CalibrationWindows
from export.comparison import VerificationError
from export.verification import Tolerance, verify

ANYTHING = Tolerance()
SHIFT = np.array([0.5, 0, 0, 0], np.float32)


def some_windows(labels=None, count=40, time=20):
    values = np.random.default_rng(1).normal(size=(count, CHANNELS, time)).astype(np.float32)
    return CalibrationWindows(10 * values, labels, "made up")


def means(windows):
    """Logits in float64 of the classifier."""
    return windows.values.astype(np.float64).mean(-1) @ WEIGHT.astype(np.float64) + BIAS


def test_equal_graphs_pass_at_every_shape(tmp_path):
    model = LinearForSequenceClassification()
    onnx.save(linear_graph(model), tmp_path / "model.onnx")
    verification = verify(model, tmp_path / "model.onnx", some_windows())
    assert verification.outputs["logits"].maximum < 1e-5
    assert verification.outputs["logits"].agreement == 1
    assert {check.shape for check in verification.shapes} == {
        (batch, CHANNELS, time) for batch in (1, 3, 32) for time in (10, 20, 35)
    }
    assert verification.scores == {}


def test_differences_are_those_of_the_outputs():
    model = LinearForSequenceClassification()
    windows = some_windows()
    logits = means(windows)
    windows = CalibrationWindows(windows.values, logits.argmax(1), "made up")
    verification = verify(model, linear_graph(model, BIAS + SHIFT), windows, "int8", ANYTHING)
    alike = np.mean(logits.argmax(1) == (logits + SHIFT).argmax(1))
    assert 0.5 < alike < 1
    found = verification.outputs["logits"]
    assert found.maximum == pytest.approx(0.5, abs=1e-5)
    assert found.mean == pytest.approx(0.5 / LABELS, abs=1e-5)
    spread = np.sqrt(logits.var(axis=0).mean())
    assert found.relative == pytest.approx(np.sqrt(0.25 / LABELS) / spread, rel=1e-4)
    assert found.agreement == pytest.approx(alike)
    assert verification.scores == {"accuracy": {"pytorch": 1.0, "onnx": pytest.approx(alike)}}
    assert verification.windows == 40 and verification.to_dict()["outputs"]["logits"]["agreement"] == alike


def test_classes_are_refused_by_dtype():
    model, windows = LinearForSequenceClassification(), some_windows()
    wrong = linear_graph(model, BIAS + SHIFT)
    with pytest.raises(VerificationError, match="logits: differs from PyTorch by up to 0.5, more than 0.0001"):
        verify(model, wrong, windows)
    for dtype in ("fp16", "int8"):
        with pytest.raises(VerificationError, match=rf"{dtype} and PyTorch decide alike in \d+.\d+% of the cases"):
            verify(model, wrong, windows, dtype)
    slight = linear_graph(model, BIAS + 1e-3 * SHIFT)
    assert verify(model, slight, windows, "fp16").outputs["logits"].maximum > 4e-4


def test_trajectories_are_measured_in_their_own_unit():
    model = LinearForRegression(scale=1000.0)
    windows = some_windows()
    trajectory = 1000 * (windows.values.transpose(0, 2, 1).astype(np.float64) @ WEIGHT + BIAS)
    windows = CalibrationWindows(windows.values, (trajectory + 2).astype(np.float32), "made up")
    verification = verify(model, linear_graph(model), windows)  # float32 rounds more than 1e-4 here
    assert verification.outputs["logits"].agreement is None
    assert verification.scores["mae"]["pytorch"] == pytest.approx(2, abs=1e-2)
    shifted = verify(model, linear_graph(model, BIAS + np.float32(0.01)), windows, "int8")
    assert shifted.scores["mae"]["onnx"] == pytest.approx(8, abs=1e-2)
    assert shifted.outputs["logits"].relative == pytest.approx(10 / np.sqrt(trajectory.var((0, 1)).mean()), rel=1e-2)
    with pytest.raises(VerificationError, match="of the output's standard deviation, more than 10.00%"):
        verify(model, linear_graph(model, BIAS + 2), windows, "int8")


def test_events_agree_by_sign():
    model, windows = LinearForFrameClassification(), some_windows()
    logits = windows.values.transpose(0, 2, 1) @ WEIGHT + BIAS
    found = verify(model, linear_graph(model, BIAS + SHIFT), windows, "int8", ANYTHING).outputs["logits"]
    assert found.agreement == pytest.approx(np.mean((logits > 0) == (logits + SHIFT > 0)), abs=1e-3)


def test_a_graph_that_is_right_at_one_length_only_is_refused():
    model = LinearForSequenceClassification()
    graph = linear_graph(model, divide_by=20)
    with pytest.raises(VerificationError, match=r"of shape \(batch, channels, time\) = \(1, 3, 10\)"):
        verify(model, graph, some_windows())
    with pytest.raises(VerificationError, match=r"7\d% of the output's standard .* = \(32, 3, 10\)"):
        verify(model, graph, some_windows(), "int8")
    fixed = linear_graph(model, divide_by=20, batch=1, time=20)
    assert [check.shape for check in verify(model, fixed, some_windows()).shapes] == [(1, CHANNELS, 20)]


def test_graphs_that_cannot_be_compared_are_refused(tmp_path):
    model, windows = LinearForSequenceClassification(), some_windows()
    with pytest.raises(VerificationError, match="logits: the graph's are NaN or infinite"):
        verify(model, linear_graph(model, BIAS * np.float32("nan")), windows)
    with pytest.raises(
        VerificationError, match="has an output 'scores', which LinearForSequenceClassification has not"
    ):
        verify(model, linear_graph(model, output="scores"), windows)
    with pytest.raises(VerificationError, match=r"cannot run windows of shape \(1, 3, 20\)"):
        verify(model, linear_graph(model, batch=1, time=10), windows)
    with pytest.raises(VerificationError, match=r"logits: shape \(32, 20, 4\) for windows of"):
        verify(model, linear_graph(LinearForRegression()), windows)
    custom = linear_graph(model)
    custom.opset_import.add(domain="mine", version=1)
    with pytest.raises(VerificationError, match="operators of 'mine'"):
        verify(model, custom, windows)
    (tmp_path / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(VerificationError, match="not a valid ONNX graph"):
        verify(model, tmp_path / "model.onnx", windows)


def test_some_tokens_of_pretraining_are_hidden_and_channels_differ():
    windows = some_windows()
    verification = verify(HidingForPreTraining(), hiding_graph(), windows)
    assert verification.outputs["reconstruction"].maximum == 0
    assert {check.shape[1] for check in verification.shapes} == {1, CHANNELS, CHANNELS + 1}
    found = verify(HidingForPreTraining(hidden=1000.0), hiding_graph(), windows, tolerance=ANYTHING)
    hidden_share = found.outputs["reconstruction"].mean / 1000
    assert 0.4 < hidden_share < 0.6
