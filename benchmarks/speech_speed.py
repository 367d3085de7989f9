"""Pieces of 1600 samples (2.3 s of 8 channels) through the model for speech synthesis, beside stock torch modules.

python -m benchmarks.speech_speed [--threads 2] [--repeats 5] [--batch 16] [--device cpu]
"""

import argparse
from functools import partial

import torch
from torch import nn

from benchmarks.frames_speed import forward
from benchmarks.model_speed import synchronised
from benchmarks.timing import alternate
from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig, TinyMyoForSpeechSynthesis

CHANNELS, SAMPLES = 8, 1600


class StockBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm1d(outputs), nn.GELU(),
            nn.Conv1d(outputs, outputs, 3, padding=1), nn.BatchNorm1d(outputs),
        )  # fmt: skip
        self.skip = nn.Sequential(nn.Conv1d(inputs, outputs, 1, stride=2), nn.BatchNorm1d(outputs))

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.block(signal) + self.skip(signal))


class StockModel(nn.Module):
    """The published layers from torch's own: no relative positions, which only saves it work."""

    def __init__(self, width: int = 192, layers: int = 8, p: float = 0.1):
        super().__init__()
        self.stem = nn.Sequential(*(StockBlock(inputs, width) for inputs in (CHANNELS, width, width)))
        self.projection = nn.Linear(width, width)
        layer = nn.TransformerEncoderLayer(width, 3, 4 * width, p, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.heads = nn.Linear(width, 80 + 48)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.heads(self.encoder(self.projection(self.stem(signal).transpose(1, 2))))


def step(model: nn.Module, signal: torch.Tensor, bf16: bool) -> None:
    with torch.autocast(signal.device.type, torch.bfloat16, enabled=bf16):
        output = model(signal)
    outputs = [output] if torch.is_tensor(output) else [output.spectrogram, output.phoneme_logits]
    sum(values.float().square().mean() for values in outputs).backward()
    model.zero_grad()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="pieces of a training step")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    pieces = torch.randn(options.batch, CHANNELS, SAMPLES, device=options.device)
    padded = (torch.arange(SAMPLES, device=options.device) < 0.9 * SAMPLES).long()[None]
    stock = StockModel().to(options.device)
    ours = TinyMyoForSpeechSynthesis(TinyMyoConfig(**TINYMYO_PRESETS["tinymyo-gaddy-synthesis"])).to(options.device)
    latency = {
        "stock": partial(forward, stock, pieces[:1]),
        "tinymyo": partial(forward, ours, pieces[:1]),
        "tinymyo, a tenth padding": partial(forward, ours, pieces[:1], padded),
    }
    rows = {"latency, batch 1": latency}
    for kind, bf16 in (("fp32", False), ("bf16", True)):
        rows[f"training {kind}, batch {options.batch}"] = {
            "stock": partial(step, stock, pieces, bf16),
            "tinymyo": partial(step, ours, pieces, bf16),
        }
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, ({CHANNELS}, {SAMPLES})")
    for label, calls in rows.items():
        for model in (stock, ours):
            model.train(label.startswith("training"))
        repeats = options.repeats if label.startswith("training") else 4 * options.repeats
        timed = {name: synchronised(call, options.device) for name, call in calls.items()}
        seconds = alternate(timed, repeats)
        cells = [f"{name} {1e3 * s:8.1f} ms (x{seconds['stock'] / s:.2f})" for name, s in seconds.items()]
        print(f"{label:24s} " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
