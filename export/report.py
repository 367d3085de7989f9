"""The report of an export: what was verified and measured, as `report.json` and `report.md`.

    report = write_report(
        "OUT", checkpoint="runs/uci_emg", task="emg-classification", dtype="int8",
        verification=verification, measurement=measurement, settings={"opset": 20},
        quantization={"method": "static", "float_layers": [...]},
    )

The card that travels with the model, `README.md`, is made by `export.card.export_card`: it holds nothing measured, so
that the same checkpoint always gives the same file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.measuring import Measurement
from export.verification import Verification
from tinymyo_hf.prediction_output import replacing

SENSITIVITY = "sensitivity.png"
"""Picture of a sweep over the layers, part of the report where it lies in the folder already."""
PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
RUNTIMES = {"onnx": "ONNX", "executorch": "ExecuTorch", "gap9": "C for GAP9"}


def write_report(
    folder: str | os.PathLike,
    *,
    checkpoint: str,
    task: str,
    dtype: str,
    verification: Verification,
    held_out: Verification | None = None,
    measurement: Measurement | None = None,
    settings: Mapping[str, Any] | None = None,
    quantization: Mapping[str, Any] | None = None,
    runtime: str = "onnx",
) -> dict[str, Any]:
    """Write `report.json` and `report.md` and return the content of the former.

    Args:
        folder: of the export, there already.
        checkpoint: what was exported, as the user named it.
        task: "emg-classification", ... as in the graph's metadata.
        dtype: "fp32", "fp16" or "int8".
        verification: on the windows of calibration, or noise.
        held_out: on windows that nothing was calibrated on; None where there are none.
        measurement: None where nothing was to be measured.
        settings: of the export (opset, dynamic axes, ...), plain values.
        quantization: of int8: method, layers kept in float, ..., plain values.
        runtime: one of `RUNTIMES`, what the export is for.
    """
    report = {
        "runtime": runtime,
        "checkpoint": checkpoint,
        "task": task,
        "dtype": dtype,
        "settings": dict(settings or {}),
        "quantization": dict(quantization) if quantization else None,
        "verification": verification.to_dict(),
        "held_out": None if held_out is None else held_out.to_dict(),
        "measurement": None if measurement is None else measurement.to_dict(),
    }
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False)
    report = json.loads(text)
    with replacing(Path(folder, "report.json"), "w") as file:
        file.write(f"{text}\n")
    with replacing(Path(folder, "report.md"), "w") as file:
        file.write(render_report(report))
        if Path(folder, SENSITIVITY).is_file():
            file.write(f"\n![Error of each layer when it is quantized]({SENSITIVITY})\n")
    return report


def render_report(report: Mapping[str, Any]) -> str:
    """The content of `report.json` as markdown."""
    verification, measurement = report["verification"], report["measurement"]
    sections = [
        f"# `{report['checkpoint']}` as {RUNTIMES[report['runtime']]}, {PRECISIONS[report['dtype']]}",
        f"Task: {report['task']}. {_settings(report['settings'])}".strip(),
        "## Against PyTorch",
        _summary(verification),
        _outputs(verification),
        *_scores(verification),
        _shapes(verification),
    ]
    if held_out := report["held_out"]:
        sections += [
            "## On windows that nothing was calibrated on",
            f"{held_out['windows']:,} windows ({held_out['source']}).",
            _outputs(held_out),
            *_scores(held_out),
        ]
    if measurement is not None:
        sections += ["## Cost", _cost(measurement), _conditions(measurement)]
    if report["quantization"]:
        sections += ["## Quantization", markdown_table(("setting", "value"), _rows(report["quantization"]))]
    return "\n\n".join(filter(None, sections)) + "\n"


def _settings(settings: Mapping[str, Any]) -> str:
    return f"Settings: {'; '.join(f'{name} {shown(value)}' for name, value in settings.items())}." if settings else ""


def _summary(verification: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in verification["tolerance"].items() if value is not None}
    limits = {
        "maximum": "largest difference {:g}",
        "agreement": "agreement at least {:.2%}",
        "relative": "relative difference at most {:.2%} where there is nothing to agree on",
    }
    tolerance = ", ".join(limits[name].format(value) for name, value in kept.items())
    return f"{verification['windows']:,} windows ({verification['source']}). Tolerance, kept: {tolerance}."


def _outputs(verification: Mapping[str, Any]) -> str:
    rows = [
        (
            f"`{name}`",
            f"{output['maximum']:.2g}",
            f"{output['mean']:.2g}",
            f"{output['relative']:.3%}",
            "" if output["agreement"] is None else f"{output['agreement']:.2%}",
        )
        for name, output in verification["outputs"].items()
    ]
    header = ("Output", "Largest difference", "Mean difference", "RMS / spread of the output", "Same decision")
    return markdown_table(header, rows)


def _scores(verification: Mapping[str, Any]) -> list[str]:
    formats = {"accuracy": ("Accuracy", "{:.2%}"), "mae": ("Mean absolute error", "{:.5g}")}
    rows = [
        (formats[name][0], *map(formats[name][1].format, scores.values()))
        for name, scores in verification["scores"].items()
    ]
    runtimes = [RUNTIMES.get(runtime, "PyTorch") for scores in verification["scores"].values() for runtime in scores]
    return [markdown_table(("Score on these windows", *runtimes), rows)] if rows else []


def _shapes(verification: Mapping[str, Any]) -> str:
    rows = [(" x ".join(map(str, check["shape"])), f"{check['maximum']:.2g}") for check in verification["shapes"]]
    images = any(len(check["shape"]) > 3 for check in verification["shapes"])
    header = "Batch x images x RGB x pixels" if images else "Batch x channels x time"
    return markdown_table((header, "Largest difference"), rows)


def _cost(measurement: Mapping[str, Any]) -> str:
    names = list(measurement["latencies"][0]["medians"])
    header = ("", *(_TITLES.get(name, name) for name in names))
    rows = [("File, MB", *(_megabytes(measurement["bytes"], name) for name in names))]
    if measurement["peak_memory"]:
        rows.append(("Peak memory of a process, MB", *(_megabytes(measurement["peak_memory"], name) for name in names)))
    for latency in measurement["latencies"]:
        for what, times in (("median", latency["medians"]), ("minimum", latency["minima"])):
            cells = (f"{1e3 * times[name]:.2f} ({times['pytorch'] / times[name]:.2f} x)" for name in names)
            rows.append((f"Batch of {latency['batch']}, {what}, ms", *cells))
    return markdown_table(header, rows)


_TITLES = {"pytorch": "PyTorch, eager", **RUNTIMES, "onnx fp32": "ONNX, float32"}


def _conditions(measurement: Mapping[str, Any]) -> str:
    versions = [f"{name} {found}" for name, found in measurement["environment"].items() if name != "processor"]
    window = measurement["window"]
    inputs = (
        f"Windows of {window[0]} channels x {window[1]} samples"
        if len(window) == 2
        else f"Inputs of {' x '.join(map(str, window))}"
    )
    text = (
        f"(x): times as fast as PyTorch. {inputs}, "
        f"{measurement['threads']} thread(s), {measurement['environment']['processor']}, {', '.join(versions)}; calls "
        "of all runtimes alternate."
    )
    if measurement["peak_memory"]:
        text += (
            " Memory: a process that imports its runtime, loads the model and runs it once, the interpreter included."
        )
    return text


def _megabytes(values: Mapping[str, int], name: str) -> str:
    return f"{values[name] / 1e6:.2f}" if name in values else ""


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), shown(value)) for name, value in values.items()]


def shown(value: Any) -> str:
    """A value as reports print it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A table in markdown, its first columns text, so many of them, and the others numbers."""
    lines = [header, ["---"] * text + ["---:"] * (len(header) - text), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
