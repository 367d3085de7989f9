"""Masked reconstruction: training steps beside stock torch modules, and whole epochs of a mix through the trainer.

python -m benchmarks.pretraining_speed [--threads 2] [--repeats 5] [--shapes 8x200,16x1000] [--device cuda]
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from benchmarks.model_speed import synchronised
from benchmarks.reference import ReferenceClassifier
from benchmarks.timing import alternate
from dataset_builders.torch_view import collate_windows
from tinymyo_hf import TinyMyoConfig, TinyMyoForPreTraining
from tinymyo_hf.quiet import quiet
from trainers.callbacks import use_readable_progress
from trainers.pretrain_arguments import PretrainingArguments
from trainers.pretrain_trainer import PretrainingTrainer
from trainers.window_mix import WindowMix

SHAPES = ((8, 200), (16, 1000))
PATCH = 20
PAPER_CHANNELS = (14, 12, 16)  # Ninapro DB6 and DB7, emg2pose


class ReferencePretraining(nn.Module):
    """The published encoder in stock modules, with mask token and linear decoder."""

    def __init__(self, channels: int, width: int = 192):
        super().__init__()
        self.encoder = ReferenceClassifier(channels, 1)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.decoder = nn.Linear(width, PATCH)

    def forward(self, signal: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        states = self.encoder.patch(signal.unsqueeze(1)).permute(0, 2, 3, 1).flatten(1, 2)
        states = torch.where(masked[..., None], self.mask_token.to(states.dtype), states)
        for block in self.encoder.blocks:
            states = block(states)
        restored = self.decoder(self.encoder.norm(states)).float()
        error = nn.functional.smooth_l1_loss(
            restored, signal.unflatten(-1, (-1, PATCH)).flatten(1, 2), reduction="none"
        )
        return error[masked].mean() + 0.1 * error[~masked].mean()


def steps(channels: int, samples: int, batch: int, device: str, bf16: bool, repeats: int) -> dict[str, float]:
    """Median seconds of a training step of each model."""
    signal = torch.rand(batch, channels, samples, device=device) * 2 - 1
    tokens = channels * samples // PATCH
    masked = torch.rand(batch, tokens, device=device).argsort(dim=1) < tokens // 2

    def step_of(model: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                if isinstance(model, ReferencePretraining):
                    loss = model(signal, masked)
                else:
                    loss = model(signal, bool_masked_pos=masked)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return synchronised(step, device)

    models = {"reference": ReferencePretraining(channels)}
    for position in ("rope", "none"):
        models[f"tinymyo {position}"] = TinyMyoForPreTraining(
            TinyMyoConfig(num_channels=channels, position_embedding_type=position)
        )
    if device == "cuda":
        models["tinymyo rope compiled"] = torch.compile(TinyMyoForPreTraining(TinyMyoConfig(num_channels=channels)))
    return alternate({name: step_of(model.to(device).train()) for name, model in models.items()}, repeats)


class Noise(Dataset):
    """Windows of uniform noise, in memory."""

    def __init__(self, count: int, channels: int, samples: int):
        self.windows = torch.rand(count, channels, samples) * 2 - 1

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_values": self.windows[index]}


class _Clock(TrainerCallback):
    """Seconds of the steps after the first few, in which kernels are compiled and caches fill."""

    def __init__(self, warmup: int):
        self.warmup = warmup

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step == self.warmup:
            self.started = time.perf_counter()
        self.seconds = time.perf_counter() - self.started if state.global_step > self.warmup else 0.0


def epoch_rate(
    channels: tuple[int, ...], samples: int, batch: int, measured: int, device: str, fast: bool, workers: int
) -> float:
    """Windows/s of the trainer on a mix, masks, padding and loader included; `fast` is bf16, on a GPU compiled too."""
    warmup = 2 if device == "cpu" else 10
    mix = WindowMix([Noise(256, c, samples) for c in channels], channels, samples, PATCH, batch_size=batch)
    with tempfile.TemporaryDirectory() as folder, quiet():
        arguments = PretrainingArguments(
            output_dir=folder,
            corpora=[{"dataset": f"noise of {c} channels"} for c in channels],
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=1,
            max_steps=warmup + measured,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=fast,
            torch_compile=fast and device == "cuda",
            dataloader_num_workers=workers,
            dataloader_persistent_workers=workers > 0,
            use_cpu=device == "cpu",
        )
        trainer = PretrainingTrainer(
            model=TinyMyoForPreTraining(TinyMyoConfig(num_channels=max(channels))),
            args=arguments,
            train_dataset=mix,
            data_collator=collate_windows,
            corpora=[],
            train_corpora=[str(c) for c in channels],
        )
        use_readable_progress(trainer)
        clock = _Clock(warmup)
        trainer.add_callback(clock)
        trainer.train()
    return measured * batch / clock.seconds


def loader_rate(channels: tuple[int, ...], samples: int, batch: int) -> float:
    """Windows/s that one process fetches, pads and masks, without a model."""
    mix = WindowMix([Noise(256, c, samples) for c in channels], channels, samples, PATCH)
    count = len(mix) // batch
    start = time.perf_counter()
    for i in range(count):
        collate_windows(mix.__getitems__(range(i * batch, (i + 1) * batch)))
    return count * batch / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shapes", default=",".join(f"{c}x{t}" for c, t in SHAPES))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("pretraining_speed: skipped, there is no CUDA device")
        return
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.device}, {options.threads} threads; (x) = times faster than stock modules"
    )
    for channels, samples in (map(int, shape.split("x")) for shape in options.shapes.split(",")):
        large = channels * samples > 4000
        if options.device == "cuda":
            batch, repeats, measured, workers = (64 if large else 512), 20, 40, 8
        else:
            batch, repeats, measured, workers = (4 if large else 32), options.repeats, (2 if large else 6), 0
        name = f"({channels}, {samples})"
        for kind, bf16 in (("fp32", False), ("bf16", True)):
            seconds = steps(channels, samples, batch, options.device, bf16, repeats)
            cells = [f"{n} {batch / s:8.1f} (x{seconds['reference'] / s:.2f})" for n, s in seconds.items()]
            print(f"step, windows/s {kind} {name:11s} batch {batch:4d}  " + "  ".join(cells), flush=True)
        mix = PAPER_CHANNELS if channels == 16 else (channels, channels - 2)
        print(f"loader, windows/s {name:11s} {loader_rate(mix, samples, batch):8.0f} in one process", flush=True)
        for kind, fast in (("fp32 eager", False), ("bf16" + (" compiled" * (options.device == "cuda")), True)):
            rate = epoch_rate(mix, samples, batch, measured, options.device, fast, workers)
            hours = 1e6 / rate / 3600
            print(
                f"trainer, windows/s {kind} {name:11s} {rate:8.1f}: an epoch of a mix of {'/'.join(map(str, mix))} "
                f"channels and a million windows takes {hours:.2f} h",
                flush=True,
            )


if __name__ == "__main__":
    main()
