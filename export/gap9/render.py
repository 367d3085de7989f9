"""`report.md` of a GAP9 export: the content of `report.json` for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from export.report import RUNTIMES, markdown_table

_KIB = 1024
_COLUMNS = ("compute", "transfers_not_hidden", "waiting_for_l3", "overhead")


def render_report(report: Mapping[str, Any]) -> str:
    """The whole page."""
    sections = [
        render_summary(report),
        "## Accuracy",
        _accuracy(report),
        "## Verification",
        _verification(report["verification"]),
        "## Cycles",
        _cycles(report["steps"]),
        "![Cycles by layer and by step](cycles.png)",
        "Where figures that nobody has measured on the chip are others:",
        _sensitivity(report["sensitivity"]),
        "All figures that the model of cost rests on:",
        _assumptions(report["assumptions"]),
        "## Memory",
        _memory(report),
        "![Memory over the steps](memory.png)",
        "## Quantization",
        _quantization(report["quantization"]),
        "## Steps",
        _steps(report["steps"]),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def render_summary(report: Mapping[str, Any]) -> str:
    """Its beginning, which is short: what was exported, and the cost of one window beside what was published."""
    window, note = report["window"], report["note"]
    warnings = "\n".join(f"- Saturating: {warning}." for warning in report["quantization"]["warnings"])
    return "\n\n".join(
        filter(
            None,
            (
                f"# `{report['checkpoint']}` as {RUNTIMES[report['runtime']]}, INT8",
                f"Task: {report['task']}. Windows of {window['channels']} channels x {window['samples']} samples, "
                f"{window['tokens']} tokens. Integers only, but for the scaling of the logits.",
                f"Every time and energy of this export is {note}.",
                _headline(report),
                warnings,
            ),
        )
    )


def _headline(report: Mapping[str, Any]) -> str:
    window, published, target = report["window"], report["published"], report["target"]
    macs, cycles, seconds = report["macs"], report["modelled_cycles"], report["modelled_seconds_at_370mhz"]
    power = next(row["value"] for row in report["assumptions"] if row["name"] == "power_mw")
    header = (
        "One window",
        f"This export, {window['channels']} x {window['samples']}, modelled",
        "Target, 8 x 1000",
        "Published, 8 x 1000",
    )
    mega = f"{cycles / 1e6:.1f} M", "", f"{published['cycles'] / 1e6:.1f} M"
    rows = [
        ("multiply-accumulate operations (MAC)", f"{macs / 1e9:.3f} G", "", ""),
        ("cycles at 370 MHz", *mega),
        ("MAC per cycle", f"{macs / cycles:.1f}", "", ""),
        ("seconds at 370 MHz", f"{seconds:.3f}", f"at most {target['seconds']}", f"{published['seconds']}"),
        ("power, mW (the published one is taken)", f"{power:g}", "", f"{published['power_mw']}"),
        (
            "energy, mJ",
            f"{report['modelled_energy_mj']:.2f}",
            f"at most {target['energy_mj']:g}",
            f"{published['energy_mj']}",
        ),
    ]
    parts = ", ".join(
        f"{name.replace('_', ' ')} {count / 1e6:,.3f} M" for name, count in report["macs_by_part"].items()
    )
    return f"{markdown_table(header, rows)}\n\nOperations: {parts}."


def _accuracy(report: Mapping[str, Any]) -> str:
    header = ("Windows", "Number", "Same class", "Correlation of logits", "Largest difference", "Float32", "INT8")
    rows = [
        (
            source,
            f"{found['windows']:,}",
            "" if found["top1"] is None else f"{found['top1']:.2%}",
            f"{found['correlation']:.5f}",
            f"{found['maximum']:.3g}",
            *(_score(found, dtype) for dtype in ("fp32", "int8")),
        )
        for source, found in report["accuracy"].items()
    ]
    return markdown_table(header, rows)


def _score(found: Mapping[str, Any], dtype: str) -> str:
    if not found["score"]:
        return ""
    value = found["score"][dtype]
    return f"accuracy {value:.2%}" if found["metric"] == "accuracy" else f"mean absolute error {value:.5g}"


def _cycles(steps: Sequence[Mapping[str, Any]]) -> str:
    """Of each kind of step, all layers together."""
    total = sum(step["cycles"] for step in steps)
    counted = any(step["instructions_rv32"] for step in steps)
    header = ("Step, of all layers", "MAC", "Cycles", "Share", "MAC/cycle", "Computing", "Transfers not hidden")
    header += ("Waiting for L3", "Starting", "Bytes L2-L1", "Bytes L3-L2")
    header += ("Instructions, RV32 without SIMD",) * counted
    rows = []
    for name, group in _by_kind(steps).items():
        sums = {key: sum(step[key] or 0 for step in group) for key, value in group[0].items() if key not in _TEXT}
        rows.append(
            (
                name,
                f"{sums['macs']:,}",
                f"{sums['cycles']:,}",
                f"{sums['cycles'] / total:.1%}",
                f"{sums['macs'] / sums['cycles']:.1f}" if sums["macs"] else "",
                *(f"{sums[column]:,}" for column in (*_COLUMNS, "bytes_l2_l1", "bytes_l3_l2")),
                *(f"{sums['instructions_rv32']:,}",) * counted,
            )
        )
    return markdown_table(header, rows)


_TEXT = {"name", "kind"}


def _by_kind(steps: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        parts = step["name"].split(".")
        groups.setdefault(".".join(parts[2:] if parts[0] == "layers" else parts), []).append(step)
    return groups


def _sensitivity(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (row["name"], f"{row['cycles'] / 1e6:.1f} M", f"{row['seconds']:.3f}", f"{row['energy_mj']:.2f}")
        for row in rows
    ]
    return markdown_table(("", "Cycles", "Seconds", "mJ"), cells)


def _assumptions(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [(row["name"], _value(row["value"]), row["unit"], row["source"], row["meaning"]) for row in rows]
    return markdown_table(("Figure", "Value", "Unit", "Where it comes from", "What it is"), cells, text=5)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{depth}: {rate:g}" for depth, rate in value)
    return f"{value:,.10g}"


def _memory(report: Mapping[str, Any]) -> str:
    plan = report["plan"]
    budget, code = plan["budget"], plan["budget"]["code"]
    rows = [
        ("L1, tiles", _kib(report["l1_peak_bytes"]), _kib(budget["l1"])),
        (f"L2, with {_kib(code)} for code and constants (estimate)", _kib(report["l2_peak_bytes"]), _kib(budget["l2"])),
        ("L3, `weights.bin`", _kib(report["l3_bytes"]), _kib(budget["l3"])),
    ]
    moved = [sum(step[key] for step in report["steps"]) for key in ("bytes_l2_l1", "bytes_l3_l2")]
    return (
        f"{markdown_table(('Memory', 'Used at most', 'Budget'), rows)}\n\n"
        f"Moved for one window: {moved[0]:,} bytes between L2 and L1, {moved[1]:,} bytes from L3 to L2."
    )


def _kib(size: int) -> str:
    return f"{size / _KIB:,.1f} KiB"


def _verification(found: Mapping[str, Any]) -> str:
    sections = []
    if found["runs"]:
        header = ("Program", "Transfers take effect", "Order of cores", "Mismatches", "Seconds")
        rows = [
            (
                _TARGETS.get(run["target"], run["target"]),
                _EFFECT.get(run["dma"], run["dma"]),
                f"shuffled, {run['shuffle']}" if run["shuffle"] else "theirs",
                f"{run['mismatches']}",
                f"{run['seconds']}",
            )
            for run in found["runs"]
        ]
        sections += [
            f"The C, on {found['vectors']} test vectors (extremes and recordings), beside the integer reference: every "
            f"element of the outputs of all {found['steps']} steps.",
            markdown_table(header, rows, text=3),
        ]
    sections += [f"Not run, {_TARGETS.get(target, target)}: {why}." for target, why in found["skipped"].items()]
    if found["float_routines"] is not None:
        files = ", ".join(found["float_routines"])
        sections.append(
            f"Routines for floats in kernels and steps, by the symbols of their object files: {files or 'none'}."
        )
    return "\n\n".join((*sections, "Not run on GAP9: neither the chip nor its SDK was at hand."))


_TARGETS = {
    "host": "this machine",
    "sanitized": "this machine, with address and undefined-behaviour sanitizers",
    "rv32": "32-bit RISC-V (QEMU)",
}
_EFFECT = {"late": "when waited for", "early": "at once"}


def _quantization(found: Mapping[str, Any]) -> str:
    chosen = ", ".join(f"{group} {method}" for group, method in found["chosen"].items()) or "none"
    text = (
        f"Method asked for: {found['method']}. Methods were compared on {found['held_out']:,} of {found['windows']:,} "
        f"windows, with ranges from the others, by the signal-to-noise ratio of the logits. Chosen: {chosen}; "
        f"{found['sqnr']:.1f} dB."
    )
    tried = [(name, f"{ratio:.1f}") for name, ratio in found["candidates"].items()]
    header = ("Tensor", "Method", "Covered from", "to", "Seen from", "to", "Saturating")
    rows = [
        (name, entry["method"], *(f"{entry[key]:.4g}" for key in _BOUNDS), f"{entry['saturating']:.4%}")
        for name, entry in found["tensors"].items()
    ]
    tables = markdown_table(("Method for all tensors", "dB"), tried), markdown_table(header, rows, text=2)
    return "\n\n".join((text, *tables))


_BOUNDS = ("low", "high", "lowest", "highest")


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    counted = any(step["instructions_rv32"] for step in steps)
    header = ("Step", "MAC", "Cycles", "Bytes L2-L1", "Bytes L3-L2") + ("Instructions, RV32 without SIMD",) * counted
    keys = ("macs", "cycles", "bytes_l2_l1", "bytes_l3_l2") + ("instructions_rv32",) * counted
    return markdown_table(header, [(step["name"], *(f"{step[key] or 0:,}" for key in keys)) for step in steps])
