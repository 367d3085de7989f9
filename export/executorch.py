"""From a checkpoint to a folder with its ExecuTorch program (`model.pte`), for phones and other small devices.

    report = export_executorch("runs/uci_emg_200", "uci-pte", dtype="int8", calibration="prepared/uci_emg_200")

Its layers run in XNNPACK. In int8 the inputs of linear layers are quantized anew in every call, each token with its own
range: nothing has to be calibrated, it is as fast as fixed ranges, and closer to float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from export.calibration import windows_or_noise
from export.card import export_card, short_name
from export.checkpoint import Checkpoint, load_checkpoint
from export.errors import ExportError
from export.extras import need
from export.folder import check_out, in_the_making
from export.graph import output_names, prepare, sample_inputs, silenced
from export.image_graph import is_of_images
from export.measuring import measure_session
from export.report import write_report
from export.verification import tolerance_of, verify_session

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.exporters import ExportedModel
    from transformers.utils import ModelOutput

    from export.executorch_session import ExecutorchSession

Dtype = Literal["fp32", "int8"]
FILE = "model.pte"


@dataclass(frozen=True)
class _Shape:
    """Of the windows that a program takes.

    Attributes:
        samples: of the windows that it is verified with.
        longest: most samples where windows may have any length, else None.
    """

    samples: int
    longest: int | None


def export_executorch(
    checkpoint: str,
    out: str | Path,
    dtype: Dtype = "fp32",
    *,
    longest: int | None = None,
    calibration: str | Path | None = None,
    calibration_split: str = "train",
    limit: int = 512,
    agreement: float | None = None,
    measured: bool = True,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Write a model as an ExecuTorch program to a folder, which appears only if its outputs are those of PyTorch.

    Args:
        checkpoint: folder or Hub id of any model of the family.
        out: the folder: `model.pte`, `export.json` (what transformers' `ExportedModel` reads beside), the checkpoint's
            other files, a card, `report.json` and `report.md`.
        dtype: of the layers' arithmetic; inputs and outputs are float32 in any case.
        longest: the program takes one window in a call, of any length up to so many samples, for which it plans its
            memory: at least twice those of the windows that it is verified on. By default all windows are as long as
            these.
        calibration: windows to verify on, as for `export.calibration.read_windows`; noise where there are none.
        calibration_split: of a prepared folder.
        limit: at most so many windows.
        agreement: least share of windows that int8 decides as PyTorch does, 0.99 by default.
        measured: whether latency is measured for the report.
        overwrite: replace another export in `out`.
        say: is told each step as it begins.

    Returns:
        The content of `report.json`.

    Raises:
        ExportError: options that contradict each other, windows that do not suit the model (`CalibrationError`),
            outputs that differ (`VerificationError`), a model that XNNPACK cannot take, or `out` is taken.
        PredictionError: the checkpoint cannot be loaded.
        ImportError: packages of the extra `executorch` are missing.
    """
    if dtype not in get_args(Dtype):
        raise ExportError(f"dtype={dtype!r}: unknown; use one of {', '.join(get_args(Dtype))}")
    need("executorch", "torchao", extra="executorch")
    folder = check_out(out, overwrite)
    source = load_checkpoint(str(checkpoint))
    extractor, config = source.extractor, source.model.config
    if is_of_images(config):
        raise ExportError(
            f"{checkpoint}: a {config.model_type}, a model of images, has no export to ExecuTorch; use ONNX"
        )
    fixed = getattr(extractor, "window_length", None) if longest is None else None
    windows = windows_or_noise(calibration, extractor, config, calibration_split, limit, fixed)
    shape = _shape(source, windows.values.shape[2], longest)
    say("tracing the model")
    program = _program(source, dtype, shape)
    with in_the_making(folder) as unfinished:
        source.save(unfinished)
        program.save_pretrained(unfinished)
        (unfinished / "README.md").write_text(_card(source, dtype, shape), encoding="utf-8")
        session = _open(unfinished, source, shape)
        say(f"comparing with PyTorch on {len(windows):,} windows ({windows.source})")
        verification = verify_session(
            source.model, session, windows, dtype, tolerance_of(dtype, agreement), runtime="executorch"
        )
        window = windows.values.shape[1:]
        path = unfinished / FILE
        if measured:
            say("measuring latency")
        measurement = measure_session(source.model, "executorch", session, path, window) if measured else None
        return write_report(
            unfinished,
            checkpoint=short_name(str(checkpoint)),
            task=source.task,
            dtype=dtype,
            verification=verification,
            measurement=measurement,
            settings={"backend": "xnnpack", "samples": _samples(shape)},
            quantization={"method": "dynamic"} if dtype == "int8" else None,
            runtime="executorch",
        )


def _shape(source: Checkpoint, samples: int, longest: int | None) -> _Shape:
    if longest is None:
        return _Shape(samples, None)
    config = source.model.config
    if longest < 2 * samples:  # the program is verified on longer windows as well
        raise ExportError(
            f"longest={longest}: use at least {2 * samples}, twice the windows it is verified on, or give shorter ones"
        )
    if config.model_type == "tinymyo" and config.stem == "patches" and longest % config.patch_size:
        raise ExportError(f"longest={longest}: no multiple of the model's patch_size {config.patch_size}")
    return _Shape(samples, longest)


def _samples(shape: _Shape) -> str:
    return str(shape.samples) if shape.longest is None else f"up to {shape.longest}"


def _program(source: Checkpoint, dtype: str, shape: _Shape) -> ExportedModel:
    from transformers.exporters import ExecutorchConfig, ExecutorchExporter

    prepared = prepare(source.model)
    _keep_outputs(prepared)
    # Memory is planned for what it is traced with.
    inputs = sample_inputs(prepared, (), shape.longest or shape.samples)
    quantizer = None
    if dtype == "int8":
        from export.pt2e import pt2e_quantizer

        values = inputs["input_values"].numpy()  # no ranges are measured on it
        quantizer = pt2e_quantizer(prepared, values, dynamic=True, batch_size=len(values))
    config = ExecutorchConfig(dynamic_shapes=_dynamic_shapes(inputs, shape.longest), quantizer=quantizer)
    try:
        with silenced():
            exported = ExecutorchExporter().export(prepared, inputs, config)
    except Exception as error:  # of the tracer or of XNNPACK, of many classes
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{source.name}: cannot become an ExecuTorch program ({reason})") from error
    exported.config = copy.deepcopy(source.model.config)  # not of the model that was prepared for tracing
    return exported


def _keep_outputs(model: PreTrainedModel) -> None:
    """Make a model return what `output_names` says and nothing else: a loss is of no use to a program."""
    forward, names = model.forward, output_names(model)

    def predicted(**inputs: torch.Tensor) -> ModelOutput:
        outputs = forward(**inputs)
        return type(outputs)(**{name: outputs[name] for name in names})

    model.forward = predicted


def _dynamic_shapes(inputs: dict[str, torch.Tensor], longest: int | None) -> dict[str, dict[int, Any]]:
    """The last axis of every input, samples or tokens, up to what is traced with."""
    from torch.export import Dim

    return {
        name: {} if longest is None else {values.ndim - 1: Dim.DYNAMIC(max=values.shape[-1])}
        for name, values in inputs.items()
    }


def _open(folder: Path, source: Checkpoint, shape: _Shape) -> ExecutorchSession:
    import torch

    from export.executorch_session import ExecutorchSession, Tensor

    channels = source.model.config.num_channels
    inputs = [Tensor("input_values", (1, channels, "time" if shape.longest else shape.samples))]
    outputs = output_names(source.model)
    if outputs == ["reconstruction"]:
        inputs.append(Tensor("bool_masked_pos"))
    return ExecutorchSession(folder, inputs, outputs, torch.get_num_threads())


def _card(source: Checkpoint, dtype: str, shape: _Shape) -> str:
    config, extractor = source.model.config, source.extractor
    first = output_names(source.model)[0]
    hidden = ""
    if first == "reconstruction":
        tokens = config.num_channels * shape.samples // config.patch_size
        hidden = f", bool_masked_pos=torch.zeros(1, {tokens}, dtype=torch.bool)"
    use = [
        f"On windows of {config.num_channels} channels at {extractor.sampling_rate:.10g} Hz that are preprocessed as "
        f"`preprocessor_config.json` says, float32 (1, channels, time), {_samples(shape)} samples. On a computer, with "
        "executorch and tinymyo-hf:",
        "```python\nimport tinymyo_hf\nimport torch\nfrom transformers.exporters import ExportedModel\n\n"
        'program = ExportedModel.from_pretrained("PATH")\n'
        f"windows = torch.zeros(1, {config.num_channels}, {shape.samples})\n"
        f"outputs = program(input_values=windows{hidden}).{first}\n```",
        "On a device, the method `forward` of `model.pte` in the ExecuTorch runtime, built with XNNPACK.",
    ]
    return export_card(
        source.name,
        task=source.task,
        dtype=dtype,
        config=config,
        preprocessing=extractor,
        source_card=source.card or None,
        runtime="executorch",
        use=use,
    )
