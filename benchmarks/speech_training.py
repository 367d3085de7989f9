"""Training steps of the published recognition model on batches of 128,000 samples: packed into pieces or padded whole.

python -m benchmarks.speech_training [--threads 2] [--steps 1] [--samples 128000] [--device cpu]

Utterances are as long as those of the corpus: 1 to 9 s, 3.6 s on average. A step is forward, CTC, backward and AdamW.
"""

import argparse
import tempfile

import numpy as np
import torch

from benchmarks.model_speed import synchronised
from benchmarks.timing import alternate
from tinymyo_hf import TINYMYO_PRESETS, TinyMyoConfig, TinyMyoForCTC
from tinymyo_hf.quiet import quiet
from trainers.recognition_trainer import RecognitionCollator, RecognitionTrainer
from trainers.speech_arguments import RecognitionArguments
from trainers.speech_batches import PIECE_LENGTH, SAMPLES_PER_FRAME

CHANNELS, RATE = 8, 689.0625
CHARACTERS_PER_SECOND = 14


def batch_items(samples: int) -> list[dict]:
    """Utterances of `samples` samples together, or a little less."""
    rng = np.random.default_rng(0)
    items, left = [], samples
    while True:
        seconds = float(np.clip(rng.lognormal(np.log(3.3), 0.45), 1, 9))
        length = round(seconds * RATE) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        if length > left:
            return items
        left -= length
        labels = torch.from_numpy(rng.integers(37, size=round(seconds * CHARACTERS_PER_SECOND)))
        items.append({"input_values": torch.randn(CHANNELS, length), "labels": labels})


def trainer_of(folder: str, bf16: bool, device: str) -> RecognitionTrainer:
    """A trainer whose model and optimizer are ready; nothing is trained with it but single steps."""
    config = TinyMyoConfig(**TINYMYO_PRESETS["tinymyo-gaddy-recognition"])
    arguments = RecognitionArguments(
        output_dir=folder, bf16=bf16, use_cpu=device == "cpu", report_to="none", disable_tqdm=True, eval_strategy="no",
        save_strategy="no", load_best_model_at_end=False, plateau_patience=-1,
    )  # fmt: skip
    model = TinyMyoForCTC(config).to(device)
    with quiet():
        trainer = RecognitionTrainer(model=model, args=arguments, data_collator=RecognitionCollator())
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def step_seconds(batch: dict, repeats: int, device: str) -> dict[str, float]:
    """Median seconds of a step in float32 and in bf16."""
    with tempfile.TemporaryDirectory() as folder:

        def step_of(bf16: bool):
            trainer = trainer_of(folder, bf16, device)

            def step() -> None:
                trainer.training_step(trainer.model, dict(batch))
                trainer.optimizer.step()
                trainer.optimizer.zero_grad()

            return synchronised(step, device)

        return alternate({"float32": step_of(False), "bf16": step_of(True)}, repeats, warmup=1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--samples", type=int, default=128_000)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    items = batch_items(options.samples)
    samples = sum(item["input_values"].shape[1] for item in items)
    for name, collator in (("packed", RecognitionCollator(PIECE_LENGTH)), ("padded", RecognitionCollator())):
        batch = collator(items)
        filled = samples / batch["attention_mask"].numel()
        for precision, seconds in step_seconds(batch, options.steps, options.device).items():
            print(
                f"speech_training {name} {precision}: {samples / seconds:,.0f} samples/s, "
                f"{samples / seconds / RATE:.0f} times real time, {len(items) / seconds:.1f} utterances/s, "
                f"{seconds:.2f} s per batch of {len(items)} utterances, {100 * filled:.0f} % of it signal"
            )


if __name__ == "__main__":
    main()
