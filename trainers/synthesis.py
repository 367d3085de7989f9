"""Voicing silent speech, from EMG of face and neck to log-mel spectra: a task of `finetune.run`.

Trained are all utterances, those of silent speech along their alignment with the same sentence read aloud; validation
and test are silent. Scores are distances to the spectra of the sentence read aloud, along an alignment, and with a
speech recogniser the words that it makes of the voiced test utterances.

The paper writes of 26 cepstral coefficients as targets. The released code has 80 log-mel bands, which the HiFi-GAN that
both use needs: that is the default (`target_features`). Its targets are standardised; here the model predicts spectra
as they are, and the loss divides distances by their scale (`target_scale`), which is the same.

Source: "TinyMyo", downstream 3; Gaddy and Klein, "An Improved Model for Voicing Silent Speech", and the released code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForSpeechSynthesis
from tinymyo_hf.audio import NUM_MELS
from trainers.arguments import DataArguments, ModelArguments
from trainers.augmentation import AUGMENTATIONS_IN_TIME
from trainers.checkpoint_fit import check_preprocessing
from trainers.errors import CheckpointError, RecipeError
from trainers.report import Column, plot_histories
from trainers.speech_arguments import SynthesisArguments
from trainers.speech_batches import scoring_batches
from trainers.speech_corpus import Utterances, check_speech, list_utterances, of_modes
from trainers.speech_models import build_speech_model
from trainers.synthesis_baselines import Predict, VoicedUtterance, run_synthesis_baselines
from trainers.synthesis_corpus import check_targets, training_share
from trainers.synthesis_examples import Voices, write_examples
from trainers.synthesis_loss import SynthesisLoss
from trainers.synthesis_metrics import Prediction, phone_confusion, score_utterance, totals
from trainers.synthesis_report import plot_confusion, plot_examples, synthesis_details
from trainers.synthesis_trainer import (
    NUM_MFCC,
    SynthesisCollator,
    SynthesisTrainer,
    headline,
    predictions_of,
    to_features,
)
from trainers.tasks import Scores, Task, describe_splits, read_corpus, split_facts

COLUMNS = (
    Column("mel_distance", "Mel distance", metric_type="mel_distance"),
    Column("mcd", "MCD (dB)", metric_type="mcd"),
    Column("phone_accuracy", "Phones (%)", 100, digits=1, metric_type="accuracy"),
    Column("wer", "WER of a recogniser (%)", metric_type="wer"),
)


class SpeechSynthesisTask(Task):
    """Utterances with spectra and phones.

    Attributes:
        labels: the phones, in the order of their ids.
        num_channels: electrodes.
        data: split -> its stored recordings.
        splits: split -> its utterances, of "train" those to learn from.
        options: of the run.
    """

    name = "emg-to-audio"
    model_class = TinyMyoForSpeechSynthesis
    trainer_class = SynthesisTrainer
    columns = COLUMNS
    unit = "utterances"
    scoring = ("vocoder", "asr_model")

    def __init__(
        self,
        data: datasets.DatasetDict,
        extractor: TinyMyoFeatureExtractor,
        corpus: str,
        arguments: SynthesisArguments,
        share: tuple[float, int] = (1.0, 0),
    ):
        """`data`: splits with the columns input_values, targets, phones, text, subject and recording. `share`: of the
        training utterances, and the seed that decides which."""
        splits = {}
        for name, split in data.items():
            utterances = list_utterances(split)
            if name == "train":
                utterances = training_share(of_modes(utterances, arguments.silent, arguments.voiced), *share)
                if not utterances:
                    raise RecipeError(
                        f"dataset {corpus}: its train split has no utterance that silent={arguments.silent}, "
                        f"voiced={arguments.voiced} leaves to learn from; use both"
                    )
            check_targets(split, utterances, name, corpus)
            splits[name] = Utterances(split, utterances, max_shift=arguments.max_shift if name == "train" else 0)
        super().__init__(splits, extractor, corpus, SynthesisCollator())
        self.data, self.options, self.share = data, arguments, share
        self.num_channels = extractor.feature_size
        self.labels = list(next(iter(data.values())).features["phones"].feature.names)
        self.subjects = {name: [u.subject for u in split.utterances] for name, split in splits.items()}

    @classmethod
    def load(cls, data: DataArguments, arguments: SynthesisArguments) -> SpeechSynthesisTask:
        wrong = [name for name in AUGMENTATIONS_IN_TIME if name in arguments.augmentations]
        if wrong:
            raise RecipeError(f"augmentations: {wrong[0]} moves windows in time but not their targets; remove it")
        Voices(arguments.vocoder, arguments.asr_model).check()  # they are needed when training is over
        corpus, extractor = read_corpus(data, ("train", "validation"))
        check_speech(corpus, extractor, data.dataset, arguments.TASK, synthesis=True)
        return cls(corpus, extractor, data.dataset, arguments, (data.train_fraction, data.train_fraction_seed))

    @classmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> SpeechSynthesisTask:
        check_speech(corpus, extractor, data.dataset, SynthesisArguments.TASK, synthesis=True)
        return cls(corpus, extractor, data.dataset, SynthesisArguments(output_dir="unused", seeds=[seed]))

    def adopt(self, checkpoint: str, model: TinyMyoForSpeechSynthesis, extractor: TinyMyoFeatureExtractor) -> None:
        check_preprocessing(checkpoint, extractor, self.corpus, self.extractor)
        found = {"num_channels": self.num_channels, "num_phonemes": len(self.labels)}
        for field, value in found.items():
            if getattr(model.config, field) != value:
                raise CheckpointError(
                    f"{checkpoint} was trained with {field}={getattr(model.config, field)}, {self.corpus} has {value}: "
                    "choose data with the same electrodes and phones, or train on these"
                )

    def reseed(self, seed: int) -> None:
        self.splits["train"].seed = seed

    def describe(self) -> str:
        rate = self.extractor.sampling_rate
        hours = {name: sum(split.lengths) / rate / 3600 for name, split in self.splits.items()}
        silent = {name: sum(u.silent for u in split.utterances) for name, split in self.splits.items()}
        shown = ", ".join(f"{name} {hours[name]:.2f} h ({silent[name]} silent)" for name in self.splits)
        return (
            f"{self.corpus}: {self.describe_outputs()}, {self.num_channels} channels at {rate:g} Hz, utterances: "
            f"{describe_splits(self, self.subjects)}; {shown}"
        )

    def describe_outputs(self) -> str:
        return f"{self.num_outputs} outputs per frame, {len(self.labels)} phones"

    @property
    def num_outputs(self) -> int:
        """Of the spectrum, per frame."""
        return NUM_MELS if self.options.target_features == "log_mel" else NUM_MFCC

    @cached_property
    def target_statistics(self) -> tuple[np.ndarray, float]:
        """Mean of each output over the frames of the training targets (outputs,), and one standard deviation about
        these means for all."""
        count, total, squares = 0, 0.0, 0.0
        for item in self.splits["train"]:
            targets = to_features(item["targets"], self.num_outputs).double().numpy()
            if not np.isfinite(targets).all():
                raise RecipeError(
                    f"dataset {self.corpus}: targets of {item['utterance'].name} are not finite numbers; correct the "
                    "recording or leave it out"
                )
            count += len(targets)
            total = total + targets.sum(axis=0)
            squares = squares + np.square(targets).sum(axis=0)
        mean = total / count
        return mean, float(np.sqrt(np.mean(squares / count - mean**2)))

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        head = {
            "num_channels": self.num_channels,
            "num_mel_bins": self.num_outputs,
            "num_phonemes": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: index for index, name in enumerate(self.labels)},
        }
        model = build_speech_model(self.model_class, arguments, head)
        start_at_mean(model, *self.target_statistics)
        return model

    def loss(self, arguments: SynthesisArguments) -> SynthesisLoss:
        scale = self.target_statistics[1] if arguments.target_scale == "standardised" else 1.0
        return SynthesisLoss(scale=scale, alignment=arguments.silent_alignment)

    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        return headline(prediction)

    def predictions(self, trainer: Trainer, split: str) -> Iterator[Prediction]:
        """What the model of a trainer says of the utterances of a split, whole ones."""
        model, utterances = trainer.model.eval(), self.splits[split]
        for places in scoring_batches(utterances.lengths, trainer.args.per_device_eval_batch_size):
            batch = self.collate([utterances[i] for i in places])
            with torch.no_grad():
                outputs = model(
                    input_values=batch["input_values"].to(model.device),
                    attention_mask=batch["attention_mask"].to(model.device),
                )
            yield from predictions_of(outputs, batch)

    def score(self, trainer: Trainer, split: str) -> Scores:
        predictions = list(self.predictions(trainer, split))
        voices = Voices(self.options.vocoder, self.options.asr_model)
        scores = self._scores(predictions)
        if trainer.is_world_process_zero():
            scores |= voices.word_errors(predictions, trainer.model.device)
            scores["vocoder"] = voices.vocoder.name
            scores["examples"] = write_examples(predictions, voices, Path(trainer.args.output_dir))
        return scores

    def _scores(self, predictions: list[Prediction]) -> Scores:
        found = [score_utterance(prediction) for prediction in predictions]
        return {
            **totals(found),
            "per_utterance": [
                {"recording": prediction.name, "frames": int(of.frames), **totals([of])}
                for prediction, of in zip(predictions, found, strict=True)
            ],
            "confusion": phone_confusion(predictions, len(self.labels)).tolist(),
        }

    def baselines(self) -> dict[str, Scores]:
        """Fitted on what was read aloud, as frames of silent speech have no targets of their own; none if there is
        nothing of the kind."""
        chosen = training_share([u for u in list_utterances(self.data["train"]) if not u.silent], *self.share)
        if not chosen:
            return {}
        voiced = Utterances(self.data["train"], chosen)
        return run_synthesis_baselines(
            lambda: (
                VoicedUtterance(item["input_values"].numpy(), item["targets"].numpy(), item["phones"].numpy())
                for item in voiced
            ),
            len(self.labels),
            self._score_of,
        )

    def _score_of(self, predict: Predict) -> Scores:
        predictions = []
        for item in self.splits[self.test_split]:
            utterance = item["utterance"]
            said = (item["targets"].numpy(), item["phones"].numpy(), utterance.silent, utterance.text)
            predictions.append(Prediction(utterance.name, *predict(item["input_values"].numpy()), *said))
        return self._scores(predictions)

    def facts(self) -> dict[str, Any]:
        facts = {
            "phones": self.labels,
            "silent_utterances": {
                name: sum(utterance.silent for utterance in split.utterances) for name, split in self.splits.items()
            },
            **split_facts(self, self.subjects),
        }
        if "train" in self.splits:
            facts["target_mean"], facts["target_std"] = self.target_statistics[0].tolist(), self.target_statistics[1]
        return facts

    @classmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        plot_examples(results, folder)
        plot_confusion(results, folder / "phones.png")
        plot_histories(results, cls.columns, folder)

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        return {
            "model": (
                "Voices silent speech: surface EMG of face and neck to log-mel spectra, from which a vocoder makes "
                "audio."
            ),
            "use": (
                'voice = pipeline("emg-to-audio", model="PATH_OR_HUB_ID")\n'
                'audio = voice("utterance.npy", sampling_rate=1000)["audio"]'
            ),
            "scores": (
                "All means over the frames of the sentences read aloud, to which the predictions for silent speech "
                "are aligned by\ndynamic time warping of the spectra. Mel distance: Euclidean distance of 80 "
                "log-mel bands (natural logarithm). MCD:\nmel-cepstral distortion, 10 / ln 10 * sqrt(2 sum (c_k - "
                "c'_k)^2) over cepstra 1 to 24 of the log-mel spectrum. Phones: share\nof frames whose phone is right. "
                "The baselines are fitted on the training utterances read aloud: the mean frame with the\ncommonest "
                "phone, and ridge regression on time-domain features of the EMG (`trainers/synthesis_baselines.py`)."
            ),
            "details": synthesis_details(results),
            "limits": f"Measured only on the people, electrodes and sentences of `{results['dataset']}`.",
        }


@torch.no_grad()
def start_at_mean(model: nn.Module, mean: np.ndarray, std: float) -> None:
    """Let a fresh head predict the mean of the targets, with weights of their scale: as a model of standardised targets
    does."""
    for name, head in model.named_modules():  # with adapters there are two: the original, and the copy that is trained
        if "spectrogram_head" in name and isinstance(head, nn.Linear):
            head.bias.copy_(torch.from_numpy(mean))
            head.weight.mul_(std)
