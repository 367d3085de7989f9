"""A recording of 8 s (16 channels at 2 kHz) through the causal model of discrete gestures, beside stock torch modules.

python -m benchmarks.frames_speed [--threads 2] [--repeats 5] [--seconds 8] [--device cpu]
"""

import argparse
from functools import partial

import torch
from torch import nn

from benchmarks.model_speed import synchronised
from benchmarks.timing import alternate
from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig, TinyMyoForFrameClassification

RATE = 2000


class StockModel(nn.Module):
    """The published layers from torch's own: no rotary positions, no drop-path, which only saves it work."""

    def __init__(self, width: int = 192, layers: int = 8, p: float = 0.1):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(16, width, kernel_size=21, stride=10), nn.GELU(), nn.Dropout(p))
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, 3, 4 * width, p, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.classifier = nn.Linear(width, 9)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        frames = self.norm(self.stem(64 * signal / (32 + signal.abs())).transpose(1, 2))
        mask = nn.Transformer.generate_square_subsequent_mask(frames.shape[1], device=frames.device)
        return self.classifier(self.encoder(frames, mask=mask, is_causal=True))


def forward(model: nn.Module, signal: torch.Tensor, mask: torch.Tensor | None = None) -> None:
    with torch.inference_mode():
        model(signal) if mask is None else model(signal, attention_mask=mask)


def step(model: nn.Module, signal: torch.Tensor, bf16: bool) -> None:
    with torch.autocast(signal.device.type, torch.bfloat16, enabled=bf16):
        output = model(signal)
    logits = getattr(output, "logits", output).float()
    nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
    model.zero_grad()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    samples = round(options.seconds * RATE)
    signal = 2 * torch.randn(1, 16, samples, device=options.device)
    padded = (torch.arange(samples, device=options.device) < 0.9 * samples).long()[None]
    stock = StockModel().to(options.device)
    ours = TinyMyoForFrameClassification(TinyMyoConfig(**TINYMYO_PRESETS["tinymyo-neuromotor"])).to(options.device)
    latency = {
        "stock": partial(forward, stock, signal),
        "tinymyo": partial(forward, ours, signal),
        "tinymyo, a tenth padding": partial(forward, ours, signal, padded),
    }
    rows = {"latency, batch 1": latency}
    for kind, bf16 in (("fp32", False), ("bf16", True)):
        rows[f"training {kind}, batch 1"] = {
            "stock": partial(step, stock, signal, bf16),
            "tinymyo": partial(step, ours, signal, bf16),
        }
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, (16, {samples})")
    for label, calls in rows.items():
        for model in (stock, ours):
            model.train(label.startswith("training"))
        timed = {name: synchronised(call, options.device) for name, call in calls.items()}
        seconds = alternate(timed, options.repeats)
        cells = [f"{name} {1e3 * s:8.1f} ms (x{seconds['stock'] / s:.2f})" for name, s in seconds.items()]
        print(f"{label:24s} " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
