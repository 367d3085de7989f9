"""Latency of the sEMG transformers for a window of 4 s at batch 1, as in the paper's Table 14, in float32 and int8.

python -m benchmarks.ctc_latency [--threads 1] [--repeats 10] [--sizes tiny,small,large] [--device cpu]
"""

import argparse
from functools import partial

import torch

from benchmarks.model_speed import synchronised
from benchmarks.timing import alternate
from tinymyo_hf import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig, SEMGTransformerForCTC
from tinymyo_hf.semg_transformer.quantization import quantize_dynamic

SAMPLES = 8000
PUBLISHED = {"tiny": 6.1, "small": 5.7, "large": 27.0}  # ms on a GPU


def forward(model: SEMGTransformerForCTC, signal: torch.Tensor) -> None:
    with torch.inference_mode():
        model(input_values=signal)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--sizes", default=",".join(PUBLISHED))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    sizes = options.sizes.split(",")
    if unknown := set(sizes) - set(PUBLISHED):
        parser.error(f"--sizes: {', '.join(sorted(unknown))} is none of {', '.join(PUBLISHED)}")
    torch.set_num_threads(options.threads)
    signal = torch.randn(1, 32, SAMPLES, device=options.device)
    models = {}
    for size in sizes:
        config = SEMGTransformerConfig(**SEMG_TRANSFORMER_PRESETS[f"semg-transformer-{size}"])
        models[size, "float32"] = SEMGTransformerForCTC(config).eval().to(options.device)
        if options.device == "cpu":
            models[size, "int8"] = quantize_dynamic(models[size, "float32"])
    calls = {
        " ".join(key): synchronised(partial(forward, model, signal), options.device) for key, model in models.items()
    }
    seconds = alternate(calls, options.repeats)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, window of {SAMPLES} samples")
    for (size, _), call in zip(models, seconds, strict=True):
        print(f"{call:16s} {1e3 * seconds[call]:8.1f} ms   (published, float32 on a GPU: {PUBLISHED[size]:.1f} ms)")
    published = PUBLISHED["large"] / PUBLISHED["small"]
    for kind in ("float32", "int8"):
        if {f"large {kind}", f"small {kind}"} <= seconds.keys():
            ratio = seconds[f"large {kind}"] / seconds[f"small {kind}"]
            print(f"LARGE / SMALL, {kind}: {ratio:.1f} (published, on a GPU: {published:.1f})")


if __name__ == "__main__":
    main()
