"""Latency at batch 1 and training throughput at batch 32, beside the same network in stock torch modules.

python -m benchmarks.model_speed [--threads 2] [--repeats 10] [--shapes 8x200,16x1000] [--device cuda]
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.reference import ReferenceClassifier
from benchmarks.timing import alternate
from tinymyo_hf import TinyMyoConfig, TinyMyoForSequenceClassification

SHAPES = ((8, 200), (8, 1000), (16, 200), (16, 1000))
CLASSES = 6


def build(channels: int, position: str, device: str) -> TinyMyoForSequenceClassification:
    config = TinyMyoConfig(num_channels=channels, num_labels=CLASSES, position_embedding_type=position)
    return TinyMyoForSequenceClassification(config).to(device)


def synchronised(call: Callable[[], object], device: str) -> Callable[[], object]:
    if device == "cpu":
        return call

    def timed() -> None:
        call()
        torch.cuda.synchronize()

    return timed


def latency(channels: int, samples: int, device: str, repeats: int) -> dict[str, float]:
    signal = torch.randn(1, channels, samples, device=device)
    models = {
        "reference": ReferenceClassifier(channels, CLASSES).to(device).eval(),
        "tinymyo rope": build(channels, "rope", device).eval(),
        "tinymyo none": build(channels, "none", device).eval(),
    }
    with torch.inference_mode():
        return alternate({n: synchronised(lambda m=m: m(signal), device) for n, m in models.items()}, repeats, warmup=5)


def training(channels: int, samples: int, device: str, bf16: bool, repeats: int) -> dict[str, float]:
    signal = torch.randn(32, channels, samples, device=device)
    labels = torch.randint(0, CLASSES, (32,), device=device)

    def step_of(model: torch.nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                output = model(signal)
            logits = getattr(output, "logits", output)
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return synchronised(step, device)

    models = {
        "reference": ReferenceClassifier(channels, CLASSES).to(device).train(),
        "tinymyo rope": build(channels, "rope", device).train(),
        "tinymyo none": build(channels, "none", device).train(),
    }
    return alternate({name: step_of(model) for name, model in models.items()}, repeats, warmup=1)


def row(label: str, seconds: dict[str, float], scale: float, unit: str, inverse: bool) -> str:
    reference = seconds["reference"]
    cells = []
    for name, value in seconds.items():
        shown = 32 / value if inverse else value * scale
        cells.append(f"{name} {shown:8.2f} {unit} (x{reference / value:.2f})")
    return f"{label:28s} " + "  ".join(cells)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--shapes", default=",".join(f"{c}x{t}" for c, t in SHAPES))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.device}, {options.threads} threads; (x) = times faster than the reference"
    )
    for channels, samples in (map(int, shape.split("x")) for shape in options.shapes.split(",")):
        name = f"({channels}, {samples})"
        seconds = latency(channels, samples, options.device, 3 * options.repeats)
        print(row(f"latency, batch 1 {name}", seconds, 1e3, "ms", inverse=False), flush=True)
        repeats = options.repeats if samples * channels < 4000 else max(2, options.repeats // 4)
        for bf16 in (False, True):
            seconds = training(channels, samples, options.device, bf16, repeats)
            label = f"training {'bf16' if bf16 else 'fp32'} {name}"
            print(row(label, seconds, 1.0, "windows/s", inverse=True), flush=True)


if __name__ == "__main__":
    main()
