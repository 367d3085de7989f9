"""`tinymyo export gap9`: from a checkpoint to a folder of verified C, whole and right, or not at all."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small_models import small_model
from typer.testing import CliRunner

from export.calibration import CalibrationError
from export.comparison import VerificationError
from export.errors import ExportError
from export.folder import check_out
from export.gap9 import export as export_module
from export.gap9.export import export_gap9
from export.gap9.generate import generate
from export.gap9.plan import make_plan
from export.gap9.schedule import Budget
from export.gap9.toolchain import missing_tool
from export.int8.agreement import Agreement, compare
from export.int8.program import Linear
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.cli import app

SAMPLES = 100
HEADLINE = ["macs", "modelled_cycles", "modelled_seconds_at_370mhz", "modelled_energy_mj"]
HEADLINE += ["l1_peak_bytes", "l2_peak_bytes", "l3_bytes", "mismatches"]


def saved(name, folder):
    small_model(name).save_pretrained(folder)
    extractor = TinyMyoFeatureExtractor(feature_size=8, sampling_rate=200, window_length=SAMPLES, stride=50)
    extractor.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Six hands\n\nOf six hands.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return saved("classification", tmp_path_factory.mktemp("checkpoint") / "hands")


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Forty labelled windows."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("windows") / "windows.npz"
    values = rng.normal(size=(40, 8, SAMPLES)).astype(np.float32)
    np.savez(path, input_values=values, labels=rng.integers(0, 6, 40), sampling_rate=200.0)
    return path


@pytest.fixture
def without_compiler(monkeypatch):
    """And without pictures, which take longer than all the rest."""
    monkeypatch.setattr("export.gap9.toolchain.shutil.which", lambda tool: None)
    for name in ("plot_memory", "plot_cycles"):
        monkeypatch.setattr(f"export.gap9.report.{name}", lambda path, *what: path.touch())


@pytest.fixture
def on_host_alone(monkeypatch):
    if reason := missing_tool("host"):
        pytest.skip(str(reason))
    monkeypatch.setattr(export_module, "TARGETS", ("host", "rv32"))


def test_the_command_writes_verified_c(checkpoint, windows, tmp_path, on_host_alone):
    out = tmp_path / "out"
    arguments = ["export", "gap9", str(checkpoint), str(out), "--calibration", str(windows), "--no-rv32"]
    arguments += ["--method", "minmax", "--agreement", "0.5", "--channels", "8", "--window", str(SAMPLES)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"make -C {out} check" in done.output and "0.785" in done.output
    assert list(tmp_path.iterdir()) == [out]
    report = json.loads((out / "report.json").read_text())
    assert list(report)[: len(HEADLINE)] == HEADLINE
    assert report["mismatches"] == 0 and report["verification"]["skipped"] == {"rv32": "not asked for"}
    assert {run["target"] for run in report["verification"]["runs"]} == {"host"}
    assert report["accuracy"]["windows.npz"]["windows"] == 40
    assert report["quantization"]["method"] == "minmax"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == set(report["files"])  # what was built to verify is gone
    assert {"weights.bin", "src/network.c", "Makefile", "CMakeLists.txt", "sdk.config", "config.json"} <= files
    assert {"preprocessor_config.json", "test_vectors/vectors.bin", "platform/gap9/main.c", "memory.png"} <= files
    card = (out / "README.md").read_text()
    assert "license: mit" in card and "Six hands" in card and "make check" in card and "sdk.config" in card
    scale = re.search(r"np\.rint\(window / ([^)]+)\)", card)[1]
    assert float(scale) == pytest.approx(report["input_scale"], rel=1e-8)
    assert str(tmp_path) not in "".join(path.read_text() for path in out.rglob("*") if path.suffix in (".c", ".md"))

    for wrong, message in (([], "holds an export already"), (["--overwrite", "--window", "200"], "window=200")):
        done = CliRunner().invoke(app, [*arguments, *wrong])
        assert done.exit_code == 2 and message in done.output
        assert files == {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_generation_works_without_a_compiler(tmp_path, windows, without_compiler):
    out, built = tmp_path / "out", []
    labels = tmp_path / "windows.npy"
    np.save(labels, np.load(windows)["input_values"])
    checkpoint = saved("regression_of_length", tmp_path / "angles")
    report = export_gap9(str(checkpoint), out, labels, method="minmax", say=built.append)
    assert report["mismatches"] is None and not report["verification"]["runs"]
    assert all("Debian package" in why for why in report["verification"]["skipped"].values())
    assert set(report["verification"]["skipped"]) == {"host", "sanitized", "rv32"}
    text = (out / "report.md").read_text()
    assert text.count("install the Debian package") == 3
    assert report["task"] == "emg-regression" and report["accuracy"]["windows.npy"]["top1"] is None
    assert (out / "src" / "network.c").is_file() and "building the graph and planning memory" in built


def test_a_missing_compiler_is_an_error_where_it_is_asked_for(checkpoint, windows, tmp_path, without_compiler):
    with pytest.raises(ExportError, match="install the Debian package"):
        export_gap9(str(checkpoint), tmp_path / "out", windows, rv32=True)


def test_an_export_is_replaced_and_nothing_else(checkpoint, windows, tmp_path, without_compiler):
    out = tmp_path / "out"
    settings = {"method": "minmax", "agreement": 0.0, "overwrite": True}
    first = export_gap9(str(checkpoint), out, windows, **settings)
    (out / "build").mkdir()
    (out / "build" / "network").write_text("of make")
    assert export_gap9(str(checkpoint), out, windows, **settings) == first
    assert not (out / "build").exists() and list(tmp_path.iterdir()) == [out]
    (out / "src" / "mine.c").write_text("int mine;")
    with pytest.raises(ExportError, match="src/mine.c beside an export"):
        check_out(out, overwrite=True)
    (out / "src" / "mine.c").unlink()
    (out / "report.json").write_text("{")
    with pytest.raises(ExportError, match="beside an export"):  # nothing says what belongs to it
        check_out(out, overwrite=True)
    with pytest.raises(ExportError, match="--overwrite"):
        check_out(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values[:, :6], "windows of 6 channels, but the model takes 8"),
        (lambda values: values.transpose(0, 2, 1), "transpose them"),
        (lambda values: values[:20], "20 windows; give at least 32"),
        (lambda values: values[:, :, :90], "no multiple of the model's patch_size"),
        (lambda values: np.where(np.arange(SAMPLES) == 7, np.nan, values), "window 0 has nan at sample 7 of channel 0"),
        (lambda values: np.zeros_like(values), "every sample is 0"),
        (lambda values: values[0], "give numbers \\(windows, channels, time\\)"),
    ],
)
def test_windows_that_do_not_suit_the_model(checkpoint, windows, tmp_path, change, message):
    path = tmp_path / "wrong.npy"
    np.save(path, change(np.load(windows)["input_values"]))
    with pytest.raises(CalibrationError, match=message):
        export_gap9(str(checkpoint), tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 16}, "channels=16: the windows of .*windows.npz have 8 channels"),
        ({"window": 200}, "window=200: the windows of .*windows.npz have 100 samples"),
        ({"method": "guess"}, "method='guess': use auto, minmax"),
        ({"limit": 8}, "limit=8: at least 32"),
    ],
)
def test_options_that_do_not_fit(checkpoint, windows, tmp_path, options, message):
    with pytest.raises(ExportError, match=message):
        export_gap9(str(checkpoint), tmp_path / "out", windows, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_folder_is_told_before_any_work(checkpoint, windows, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "load_checkpoint", lambda source: pytest.fail("told before any work"))
    (tmp_path / "chapter.tex").write_text("1")
    with pytest.raises(ExportError, match="is not empty, and no export"):
        export_gap9(str(checkpoint), tmp_path, windows, overwrite=True)


def test_models_without_integer_kernels(windows, tmp_path):
    checkpoint = saved("encoder", tmp_path / "encoder")
    with pytest.raises(ExportError, match="TinyMyoModel, for which there are no integer kernels"):
        export_gap9(str(checkpoint), tmp_path / "out", windows)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_says_which_buffer_and_by_how_much(checkpoint, windows, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "make_plan", partial(make_plan, budget=Budget(l2=4_000, code=0)))
    said: list[str] = []
    with pytest.raises(ExportError, match="L2: layers.0.attention.qk needs 10,496 bytes, 6,496 more than"):
        export_gap9(str(checkpoint), tmp_path / "out", windows, method="minmax", say=said.append)
    assert said == ["building the graph and planning memory"]  # minutes of quantizing did not come first
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_integers_decide_otherwise(checkpoint, windows, tmp_path, monkeypatch):
    def unlike(*arguments) -> Agreement:
        return replace(compare(*arguments), top1=0.95)

    monkeypatch.setattr(export_module, "compare", unlike)
    with pytest.raises(VerificationError, match="95.00% of the windows, less than 99.00%.*uci_emg_qat.*--agreement"):
        export_gap9(str(checkpoint), tmp_path / "out", windows, method="minmax")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_the_c_computes_something_else(checkpoint, windows, tmp_path, monkeypatch, on_host_alone):
    """As after a defect of a kernel: here another weight than the reference has."""

    def wrong(program, plan, out, vectors):
        steps = list(program.steps)
        at = next(i for i, step in enumerate(steps) if isinstance(step, Linear) and step.residual)
        steps[at] = replace(steps[at], weight=-steps[at].weight)
        generate(replace(program, steps=tuple(steps)), plan, out, vectors)

    monkeypatch.setattr(export_module, "generate", wrong)
    settings = {"method": "minmax", "agreement": 0.0, "rv32": False}
    with pytest.raises(ExportError, match=r"layers.0.attention.proj: the C differs .* in \d+ elements"):
        export_gap9(str(checkpoint), tmp_path / "out", windows, **settings)
    assert list(tmp_path.iterdir()) == []


def test_ranges_of_training_are_taken(checkpoint, windows, tmp_path, without_compiler):
    trained = tmp_path / "trained"
    shutil.copytree(checkpoint, trained)
    ranges = {"tinymyo.layers.0.mlp.fc1": {"input": [-2.5, 2.5]}}
    (trained / "activation_ranges.json").write_text(json.dumps(ranges))
    settings = {"method": "minmax", "agreement": 0.0}
    report = export_gap9(str(trained), tmp_path / "out", windows, **settings)
    norm = report["quantization"]["tensors"]["layers.0.norm2"]
    assert (norm["method"], norm["low"], norm["high"]) == ("trained", -2.5, 2.5)
    (trained / "activation_ranges.json").write_text("{")
    with pytest.raises(ExportError, match="activation_ranges.json: cannot be read"):
        export_gap9(str(trained), tmp_path / "again", windows, **settings)
