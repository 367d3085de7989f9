"""Real-time factors of the vocoders: seconds of work per second of speech. Random weights, which cost what trained do.

python -m benchmarks.vocoder_speed [--threads 1] [--seconds 4] [--repeats 3] [--device cuda]
"""

import argparse

import numpy as np
import torch
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from benchmarks.timing import alternate
from tinymyo_hf.audio import AUDIO_RATE, HOP_LENGTH, NUM_MELS
from tinymyo_hf.hifigan import HifiGan
from tinymyo_hf.vocoder import GriffinLim


def hifigan_v1(device: str) -> HifiGan:
    """The largest of the published generators, which the silent speech papers use."""
    config = SpeechT5HifiGanConfig(
        model_in_dim=NUM_MELS,
        sampling_rate=AUDIO_RATE,
        upsample_rates=[8, 8, 2, 2],
        upsample_kernel_sizes=[16, 16, 4, 4],
        normalize_before=False,
    )
    return HifiGan(SpeechT5HifiGan(config).to(device), "V1")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the speech")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of HiFi-GAN")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    frames = round(options.seconds * AUDIO_RATE / HOP_LENGTH)
    spectrum = np.random.default_rng(0).normal(-5, 2, (frames, NUM_MELS)).astype(np.float32)
    vocoders = {vocoder.name: vocoder for vocoder in (GriffinLim(), hifigan_v1(options.device))}
    calls = {name: lambda vocoder=vocoder: vocoder(spectrum) for name, vocoder in vocoders.items()}
    seconds = alternate(calls, options.repeats, warmup=1)
    factors = [f"{name} {time * AUDIO_RATE / (frames * HOP_LENGTH):.3f}" for name, time in seconds.items()]
    print(
        f"vocoder_speed: real-time factor {', '.join(factors)} "
        f"({options.seconds:g} s of speech, {options.threads} threads, HiFi-GAN on {options.device})"
    )


if __name__ == "__main__":
    main()
