"""Writing text from EMG with CTC (keystrokes): a task of `finetune.run`.

The network is trained on windows with context and scored on whole sessions, as it is used. During training each
validation window is decoded by itself, which is cheaper: weights are selected by its character error rate (CER).
Decoding is greedy. Source: "Scaling and Distilling Transformer Models for sEMG", section 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from dataset_builders.continuous_view import ContinuousDataset, Cutting
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.semg_transformer.preprocessing_semg_transformer import UNTOUCHED, SEMGInputError
from trainers.arguments import DataArguments, ModelArguments
from trainers.augmentation import AUGMENTATIONS_IN_TIME
from trainers.ctc_arguments import CTCArguments, paper_learning_rate
from trainers.ctc_baselines import BASELINE_SECONDS, TypedSignal, run_typing_baselines
from trainers.ctc_corpus import (
    TextTarget,
    TextWindows,
    check_texts,
    collate_text_windows,
    read_tokenizer,
    text_facts,
    too_long_texts,
)
from trainers.ctc_models import (
    build_ctc_model,
    check_characters,
    has_statistics,
    needs_statistics,
    plain_model,
    semg_config,
    store_statistics,
)
from trainers.ctc_report import plot_users, text_excerpt, user_tables
from trainers.ctc_trainer import CTCTrainer, collapse, session_labels
from trainers.errors import CheckpointError, RecipeError
from trainers.event_corpus import check_events, recording_lengths, window_subjects
from trainers.report import Column, plot_histories
from trainers.subsets import WindowShare
from trainers.tasks import Scores, Task, describe_window, read_corpus, split_facts
from trainers.text_metrics import Errors, character_errors, text_scores

COLUMNS = (
    Column("cer", "CER (%)", metric_type="cer"),
    Column("ser", "Substituted (%)"),
    Column("der", "Deleted (%)"),
    Column("ier", "Inserted (%)"),
)
STATISTICS_WINDOWS = 256  # from which the statistics of a frozen input norm are taken


@dataclass(frozen=True)
class Session:
    """A recording with what was typed.

    Attributes:
        name, subject: of the recording.
        signal: float32 (channels, time).
        ids: (characters,) typed.
    """

    name: str
    subject: str
    signal: torch.Tensor
    ids: list[int]


class CTCTask(Task):
    """Recordings with keystrokes.

    Attributes:
        tokenizer: its ids are those of the corpus's characters.
        labels: the characters, in the order of their ids.
        num_channels: electrodes of all bands.
        data: split -> its stored recordings.
        subjects: split -> (windows,) names.
        texts: split -> how much text there is (`text_facts`).
    """

    name = "emg-to-text"
    family = "sEMG transformer"
    model_class = SEMGTransformerForCTC
    trainer_class = CTCTrainer
    columns = COLUMNS

    def __init__(
        self,
        data: datasets.DatasetDict,
        preprocessing: TinyMyoFeatureExtractor,
        extractor: SEMGTransformerFeatureExtractor,
        corpus: str,
        arguments: CTCArguments,
        train_share: tuple[float, int] = (1.0, 0),
    ):
        """`data`: splits whose rows are recordings, checked; `preprocessing`: that made them, for window and stride;
        `train_share`: the part of the training windows to learn from, and the seed that chooses them."""
        self.tokenizer = read_tokenizer(data, corpus)
        self.preprocessing = preprocessing
        self.loss_span, self.chunk = arguments.loss_span, arguments.session_chunk
        length, stride, context = preprocessing.window_length, preprocessing.stride, tuple(arguments.context)
        cuttings = {
            name: Cutting(length, stride, context, jitter=arguments.jitter)
            if name == "train"
            else Cutting(length, length, context)
            for name in data
        }
        span, aligned = self.loss_span == "window", arguments.alignment_weight > 0
        views = {
            name: ContinuousDataset(
                split,
                cuttings[name],
                transform=TextTarget(span, starts=aligned and name == "train"),
                seed=arguments.seeds[0],
            )
            for name, split in data.items()
        }
        shares = {"train": WindowShare(views["train"], *train_share)} if train_share[0] < 1 and "train" in data else {}
        splits = {name: TextWindows(views[name], split, shares.get(name)) for name, split in data.items()}
        super().__init__(splits, extractor, corpus, collate_text_windows)
        self.data, self.cuttings = data, cuttings
        self.labels = list(self.tokenizer.characters)
        self.num_channels = extractor.num_channels
        names = {name: window_subjects(split, cuttings[name]) for name, split in data.items()}
        self.subjects = {name: [names[name][i] for i in splits[name].indices] for name in data}
        self.texts = {name: text_facts(split, cuttings[name]) for name, split in data.items()}
        check_texts(data, self.texts, corpus)

    @classmethod
    def complete(cls, model: ModelArguments, arguments: CTCArguments) -> None:
        config = semg_config(model)
        if arguments.learning_rate is None:
            arguments.learning_rate = paper_learning_rate(config.hidden_size, config.num_hidden_layers)

    @classmethod
    def load(cls, data: DataArguments, arguments: CTCArguments) -> CTCTask:
        wrong = [name for name in AUGMENTATIONS_IN_TIME if name in arguments.augmentations]
        if wrong:
            raise RecipeError(f"augmentations: {wrong[0]} moves windows in time but not their text; remove it")
        corpus, preprocessing = read_corpus(data, ("train", "validation"))
        return cls._checked(corpus, preprocessing, data, arguments)

    @classmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> CTCTask:
        # scoring takes sessions whole: how windows would be cut decides nothing
        return cls._checked(corpus, extractor, data, CTCArguments(output_dir="unused", seeds=[seed]))

    @classmethod
    def _checked(
        cls,
        corpus: datasets.DatasetDict,
        preprocessing: TinyMyoFeatureExtractor,
        data: DataArguments,
        arguments: CTCArguments,
    ) -> CTCTask:
        read_tokenizer(corpus, data.dataset)
        check_events(corpus, data.dataset, SEMGTransformerConfig().receptive_field)
        try:
            extractor = SEMGTransformerFeatureExtractor.from_preprocessing(preprocessing)
        except SEMGInputError as error:
            raise RecipeError(f"dataset {data.dataset}: {error}") from None
        share = (data.train_fraction, data.train_fraction_seed)
        return cls(corpus, preprocessing, extractor, data.dataset, arguments, share)

    @classmethod
    def options_of(cls, config: SEMGTransformerConfig, extractor: SEMGTransformerFeatureExtractor) -> dict[str, Any]:
        return {"rows": "recordings", "sampling_rate": extractor.sampling_rate, **UNTOUCHED}

    def adopt(self, checkpoint: str, model: SEMGTransformerForCTC, extractor: SEMGTransformerFeatureExtractor) -> None:
        for field in ("num_channels", "sampling_rate", "bands", "rotation"):
            trained, found = getattr(extractor, field), getattr(self.extractor, field)
            if trained != found:
                raise CheckpointError(
                    f"{checkpoint} was trained with {field}={trained}, {self.corpus} has {field}={found}: choose data "
                    "recorded as those it was trained on"
                )
        check_characters(checkpoint, model.config, self.labels)

    @property
    def window(self) -> dict[str, float]:
        return describe_window(self.preprocessing)

    def save_processors(self, folder: Path) -> None:
        super().save_processors(folder)
        self.tokenizer.save_pretrained(folder)

    def describe_outputs(self) -> str:
        typed = ", ".join(f"{found['keystrokes']:,} in {name}" for name, found in self.texts.items())
        return f"{len(self.labels)} characters (keystrokes: {typed})"

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        model = build_ctc_model(
            arguments,
            {
                "num_channels": self.num_channels,
                "vocab_size": len(self.tokenizer),
                "pad_token_id": self.tokenizer.pad_token_id,
            },
            self.tokenizer,
        )
        plain = plain_model(model)
        if "train" in self.data:
            self.texts["train"]["windows_with_too_long_texts"] = self._check_lengths(plain.config)
            if needs_statistics(plain.config) and not has_statistics(arguments.model_name_or_path):
                store_statistics(plain, self._training_sample())
        return model

    def _check_lengths(self, config: SEMGTransformerConfig) -> int:
        texts, too_long = too_long_texts(self.data["train"], self.cuttings["train"], config, self.loss_span == "window")
        if too_long == texts:
            raise RecipeError(
                f"dataset {self.corpus}: no training window has as many frames as characters; use longer windows "
                "(dataset_config.window_length), or check the events"
            )
        return too_long

    def _training_sample(self) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of training windows, taken evenly from all of them: the same for every seed, whatever was trained
        before."""
        cutting = dataclasses.replace(self.cuttings["train"], jitter=False)
        windows = ContinuousDataset(self.data["train"], cutting, transform=TextTarget(span=False))
        indices = self.splits["train"].indices
        chosen = np.linspace(0, len(indices) - 1, min(STATISTICS_WINDOWS, len(indices))).astype(int).tolist()
        for start in range(0, len(chosen), 16):
            yield self.collate([windows[indices[i]] for i in chosen[start : start + 16]])

    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        blank = self.tokenizer.pad_token_id
        pairs = zip(prediction.predictions, prediction.label_ids, strict=True)
        errors = [character_errors(collapse(frames, blank), labels[labels >= 0]) for frames, labels in pairs]
        return sum(errors, Errors()).rates()

    def sessions(self, split: str) -> Iterator[Session]:
        """The recordings of a split, one at a time."""
        for item in ContinuousDataset(self.data[split], Cutting(), ["subject"]):
            yield Session(item["recording"], item["subject"], item["input_values"], item["event_ids"].tolist())

    def score(self, trainer: Trainer, split: str) -> Scores:
        model = plain_model(trainer.model).eval()
        return self._scores(
            (session, collapse(session_labels(model, session.signal, self.chunk), self.tokenizer.pad_token_id))
            for session in self.sessions(split)
        )

    def _scores(self, decoded: Iterator[tuple[Session, list[int]]]) -> Scores:
        """Scores of sessions and what they were read as: of all, by subject and by session."""
        found, subjects, rows, example = [], [], [], None
        for session, ids in decoded:
            errors = character_errors(ids, session.ids)
            found.append(errors)
            subjects.append(session.subject)
            place = {"session": session.name, "subject": session.subject, "characters": errors.target_length}
            rows.append(place | errors.rates())
            if example is None and session.ids:
                example = text_excerpt(session.name, self.tokenizer.decode(session.ids), self.tokenizer.decode(ids))
        return {**text_scores(found, subjects), "per_session": rows, "example": example}

    def baselines(self) -> dict[str, Scores]:
        train = self.splits["train"]
        cutting = Cutting(self.preprocessing.window_length, self.preprocessing.stride)
        windows = ContinuousDataset(self.data["train"], cutting)
        most = max(int(BASELINE_SECONDS / self.window["seconds"]), 1)
        order = np.random.default_rng(0).permutation(list(train.indices))[:most]
        typed = (
            TypedSignal(item["input_values"].numpy(), item["event_ids"].numpy(), item["event_starts"].numpy())
            for item in (windows[int(i)] for i in order)
        )
        return run_typing_baselines(
            typed, self.extractor.sampling_rate, lambda decode: self._scores(self._decoded_by(decode))
        )

    def _decoded_by(self, decode: Any) -> Iterator[tuple[Session, list[int]]]:
        for session in self.sessions(self.test_split):
            yield session, decode(session.signal.numpy())

    def facts(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "recordings": {name: len(recording_lengths(split)) for name, split in self.data.items()},
            "texts": self.texts,
            **split_facts(self, self.subjects),
        }

    @classmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        plot_users(results, cls.columns, folder / "per_user.png")
        plot_histories(results, cls.columns, folder)

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        window = results["window"]
        return {
            "model": (
                f"Writes what is typed from surface EMG of both wrists: {len(results['labels'])} characters, greedy "
                "decoding of CTC."
            ),
            "use": (
                'read = pipeline("emg-to-text", model="PATH_OR_HUB_ID")\n'
                f'print(read("session.npy", sampling_rate={window["sampling_rate"]:g})["text"])'
            ),
            "scores": (
                "Character error rate: the fewest insertions, deletions and substitutions that turn what was decoded "
                "into what was\ntyped (backspace, enter and shift are characters of their own), in percent of the "
                "characters typed; all sessions\npooled. Inserted are characters that nobody typed. Test sessions "
                "were decoded whole, validation windows one by one.\nThe baseline is described in "
                "`trainers/ctc_baselines.py`."
            ),
            "details": user_tables(results, cls.columns),
            "limits": f"Measured only on the people, wristbands and keyboards of `{results['dataset']}`.",
        }
