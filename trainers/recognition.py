"""Writing what was said, aloud or silently, from EMG of face and neck: a task of `finetune.run`.

A network is trained with CTC on the texts, normalised (`tinymyo_hf.speech_text`). During training each validation
utterance is decoded greedily, and weights are selected by its word error rate; at the end the split that is reported
is also decoded with a lexicon and a word language model, both of the training texts alone.

Source: "TinyMyo", downstream 3 (recognition).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from dataset_builders.continuous_view import IGNORED_LABEL
from tinymyo_hf import TinyMyoFeatureExtractor, TinyMyoForCTC
from tinymyo_hf.speech_text import SPEECH_CHARACTERS, normalize_text
from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.arguments import DataArguments, ModelArguments
from trainers.augmentation import AUGMENTATIONS_IN_TIME
from trainers.checkpoint_fit import check_preprocessing
from trainers.ctc_models import check_characters, plain_model
from trainers.errors import CheckpointError, RecipeError
from trainers.recognition_baselines import run_recognition_baselines
from trainers.recognition_decoding import Recognised, Words, greedy_text, recognise, recognition_scores
from trainers.recognition_report import plot_words, recognition_details
from trainers.recognition_trainer import PHONE_HEAD, RecognitionCollator, RecognitionTrainer
from trainers.report import Column, plot_histories
from trainers.speech_arguments import RecognitionArguments
from trainers.speech_batches import SAMPLES_PER_FRAME, scoring_batches
from trainers.speech_corpus import Utterance, Utterances, check_speech, list_utterances, of_modes
from trainers.speech_models import build_speech_model
from trainers.synthesis_corpus import training_share
from trainers.tasks import Scores, Task, describe_splits, read_corpus, split_facts
from trainers.word_metrics import word_errors

COLUMNS = (
    Column("wer", "WER, greedy (%)", metric_type="wer"),
    Column("cer", "CER, greedy (%)", metric_type="cer"),
    Column("wer_lm", "WER, beam + LM (%)", metric_type="wer"),
    Column("cer_lm", "CER, beam + LM (%)", metric_type="cer"),
)


class RecognitionTask(Task):
    """Utterances with texts.

    Attributes:
        tokenizer: of the 37 characters of speech and the blank.
        labels: the characters, in the order of their ids.
        num_channels: electrodes.
        data: split -> its stored recordings.
        splits: split -> its utterances that have a text, of "train" those to learn from.
        texts: split -> how much text there is, and what cannot be learned from or scored.
        words: of the word decoder; None where nothing is known of the training texts.
    """

    name = "emg-to-text"
    model_class = TinyMyoForCTC
    trainer_class = RecognitionTrainer
    columns = COLUMNS
    unit = "utterances"
    scoring = ("beam_size", "test_beam_size", "lm_weight", "word_score", "lm_path", "lexicon_path")

    def __init__(
        self,
        data: datasets.DatasetDict,
        extractor: TinyMyoFeatureExtractor,
        corpus: str,
        arguments: RecognitionArguments,
        share: tuple[float, int] = (1.0, 0),
    ):
        """`data`: splits with the columns input_values, text, subject and recording. `share`: of the training
        utterances, and the seed that decides which."""
        self.tokenizer = EmgCharacterTokenizer(characters=SPEECH_CHARACTERS)
        self.options, self.texts, splits = arguments, {}, {}
        if arguments.phone_weight and "phones" not in next(iter(data.values())).features:
            raise RecipeError(
                f"dataset {corpus} has no phones, which phone_weight={arguments.phone_weight} learns from: prepare it "
                "with audio: true, or set it to 0"
            )
        for name, split in data.items():
            utterances = list_utterances(split)
            if name == "train":
                utterances = training_share(of_modes(utterances, arguments.silent, arguments.voiced), *share)
            utterances = [dataclasses.replace(u, text=normalize_text(u.text)) for u in utterances]
            spoken = [u for u in utterances if u.text and u.frames]
            self.texts[name] = self._text_facts(utterances, spoken)
            _check_texts(spoken, self.texts[name], f"dataset {corpus}, {name} split")
            splits[name] = Utterances(
                split,
                spoken,
                self._with_phones if name == "train" and arguments.phone_weight else self._with_labels,
                max_shift=arguments.max_shift if name == "train" else 0,
            )
        super().__init__(splits, extractor, corpus, RecognitionCollator())
        self.data = data
        self.num_channels = next(iter(data.values())).features["input_values"].length
        self.labels = list(self.tokenizer.characters)
        self.subjects = {name: [u.subject for u in split.utterances] for name, split in splits.items()}
        self._stored: Words | None = None

    @classmethod
    def load(cls, data: DataArguments, arguments: RecognitionArguments) -> RecognitionTask:
        wrong = [name for name in AUGMENTATIONS_IN_TIME if name in arguments.augmentations]
        if wrong:
            raise RecipeError(f"augmentations: {wrong[0]} moves windows in time but not their text; remove it")
        corpus, extractor = read_corpus(data, ("train", "validation"))
        check_speech(corpus, extractor, data.dataset, arguments.TASK)
        task = cls(corpus, extractor, data.dataset, arguments, (data.train_fraction, data.train_fraction_seed))
        if task.words is not None and (arguments.lexicon_path or arguments.lm_path):
            task.words.decoder(task.tokenizer, beam_size=1)  # for its errors: it is needed only after training
        return task

    @classmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> RecognitionTask:
        check_speech(corpus, extractor, data.dataset, RecognitionArguments.TASK)
        return cls(corpus, extractor, data.dataset, RecognitionArguments(output_dir="unused", seeds=[seed]))

    def adopt(self, checkpoint: str, model: TinyMyoForCTC, extractor: TinyMyoFeatureExtractor) -> None:
        check_preprocessing(checkpoint, extractor, self.corpus, self.extractor)
        if model.config.num_channels != self.num_channels:
            raise CheckpointError(
                f"{checkpoint} takes {model.config.num_channels} channels, {self.corpus} has {self.num_channels}"
            )
        check_characters(checkpoint, model.config, self.labels)
        self.options.check_scoring()
        self._stored = Words.of_checkpoint(checkpoint, self.options)

    def reseed(self, seed: int) -> None:
        self.splits["train"].seed = seed

    @cached_property
    def words(self) -> Words | None:
        """Those of the checkpoint, or else of the training texts."""
        if self._stored is not None or "train" not in self.splits:
            return self._stored
        return Words.of_texts((u.text for u in self.splits["train"].utterances), self.options)

    @property
    def frame_rate(self) -> float:
        """Frames of the model per second."""
        return self.extractor.sampling_rate / SAMPLES_PER_FRAME

    def save_processors(self, folder: Path) -> None:
        super().save_processors(folder)
        self.tokenizer.save_pretrained(folder)
        if self.words is not None:
            self.words.save(folder)

    def describe(self) -> str:
        rate = self.extractor.sampling_rate
        hours = ", ".join(f"{name} {sum(of.lengths) / rate / 3600:.2f} h" for name, of in self.splits.items())
        return (
            f"{self.corpus}: {self.describe_outputs()}, {self.num_channels} channels at {rate:g} Hz, utterances: "
            f"{describe_splits(self, self.subjects)}; {hours}"
        )

    def describe_outputs(self) -> str:
        words = ", ".join(f"{found['words']:,} in {name}" for name, found in self.texts.items())
        return f"{len(self.labels)} characters (words: {words})"

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        head = {
            "num_channels": self.num_channels,
            "vocab_size": len(self.tokenizer),
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        if self.options.phone_weight and arguments.lora:
            raise RecipeError(
                "phone_weight: checkpoints of adapters do not keep its layer, so that a run could not go on; set it "
                "to 0, or train without lora"
            )
        model = build_speech_model(self.model_class, arguments, head)
        if self.options.phone_weight and "train" in self.splits:
            phones = self.data["train"].features["phones"].feature.num_classes
            plain = plain_model(model)
            plain.add_module(PHONE_HEAD, nn.Linear(plain.config.hidden_size, phones))
        return model

    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        said = [self.tokenizer.decode(labels[labels >= 0].tolist()) for labels in prediction.label_ids]
        errors = word_errors(said, [greedy_text(frames, self.tokenizer) for frames in prediction.predictions])
        return {name: errors[name] for name in ("wer", "cer")}

    @torch.no_grad()
    def logits(self, trainer: Trainer, split: str) -> Iterator[tuple[Utterance, np.ndarray, float]]:
        """Each utterance of a split, its logits (frames, vocabulary), and the seconds that the network took."""
        model, utterances = plain_model(trainer.model).eval(), self.splits[split]
        for places in scoring_batches(utterances.lengths, trainer.args.per_device_eval_batch_size):
            items = [utterances[i] for i in places]
            batch = {name: value.to(model.device) for name, value in self.collate(items).items()}
            started = time.perf_counter()
            logits = model(batch["input_values"], batch["attention_mask"]).logits.float().cpu().numpy()
            seconds = (time.perf_counter() - started) / len(items)
            for i, length in enumerate(batch["lengths"].tolist()):
                yield utterances.utterances[places[i]], logits[i, :length], seconds

    def score(self, trainer: Trainer, split: str) -> Scores:
        decoder = self._decoder(split)
        return self._scores(
            recognise(utterance, logits, self.tokenizer, decoder, seconds)
            for utterance, logits, seconds in self.logits(trainer, split)
        )

    def _decoder(self, split: str) -> Any | None:
        beam_size = self.options.test_beam_size if split == "test" else self.options.beam_size
        return None if self.words is None else self.words.decoder(self.tokenizer, beam_size)

    def _scores(self, found: Iterator[Recognised]) -> Scores:
        return recognition_scores(list(found), self.frame_rate)

    def baselines(self) -> dict[str, Scores]:
        return run_recognition_baselines(
            self.splits["train"], self.splits[self.test_split], self.tokenizer, self._decoder(self.test_split),
            self._scores,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        facts = {"labels": self.labels, "texts": self.texts, **split_facts(self, self.subjects)}
        if self.words is not None:
            facts["lexicon_words"] = len(self.words.lexicon)
            given = {"lexicon_path": self.options.lexicon_path, "lm_path": self.options.lm_path}
            facts |= {name: path for name, path in given.items() if path is not None}
        return facts

    @classmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        plot_words(results, folder / "words.png")
        plot_histories(results, cls.columns, folder)

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        return {
            "model": "Writes what is said, aloud or silently, from surface EMG of face and neck: CTC over characters.",
            "use": (
                'read = pipeline("emg-to-text", model="PATH_OR_HUB_ID")\n'
                'print(read("utterance.npy", sampling_rate=1000)["text"])'
            ),
            "scores": (
                "Word error rate: the fewest words to insert, delete or substitute to turn what was recognised into "
                "what was said,\nin percent of the words said; all utterances pooled. CER: the same of characters. "
                f"Texts are lower case, without\npunctuation, numbers spelled out. The beam search knows "
                f"{_known_words(results)}. The baselines are described in `trainers/recognition_baselines.py`."
            ),
            "details": recognition_details(results),
            "limits": f"Measured only on the people, electrodes and sentences of `{results['dataset']}`.",
        }

    def _with_labels(self, item: dict) -> dict:
        """What `RecognitionCollator` needs of an item of `Utterances`."""
        ids = self.tokenizer(item["utterance"].text).input_ids
        return {"input_values": item["input_values"], "labels": torch.tensor(ids)}

    def _with_phones(self, item: dict) -> dict:
        """As `_with_labels`, with the phone of each frame. Those of silent speech are not known: the phones that the
        corpus has for it are of the sentence read aloud, at another pace."""
        utterance = item["utterance"]
        phones = torch.full((utterance.frames,), IGNORED_LABEL)
        if not utterance.silent:
            known = item["phones"][: utterance.frames]
            phones[: len(known)] = known
        return self._with_labels(item) | {"phones": phones}

    def _text_facts(self, utterances: list[Utterance], spoken: list[Utterance]) -> dict[str, int]:
        return {
            "words": sum(len(u.text.split()) for u in spoken),
            "characters": sum(len(u.text) for u in spoken),
            "utterances_without_text": sum(not u.text for u in utterances),
            "utterances_too_short_for_their_text": sum(frames_needed(u.text) > u.frames for u in spoken),
        }


def _known_words(results: Mapping[str, Any]) -> str:
    """What the word decoder was given, in words: files of the user may know more than the training texts."""
    lexicon, model = results.get("lexicon_path"), results.get("lm_path")
    if lexicon is None and model is None:
        return "the words and the 4-gram language model of the training texts\nalone"
    words = "the training texts" if lexicon is None else f"`{Path(lexicon).name}`"
    grams = "4-gram language model of the training texts" if model is None else f"language model `{Path(model).name}`"
    return f"the words of {words} and the {grams}"


def frames_needed(text: str) -> int:
    """The fewest frames in which CTC can spell a text: one per character, and one more between equal ones."""
    return len(text) + sum(a == b for a, b in zip(text, text[1:], strict=False))


def _check_texts(spoken: list[Utterance], facts: Mapping[str, int], where: str) -> None:
    if not spoken:
        raise RecipeError(
            f"{where}: no utterance with a text in letters of a to z is left; check the column text, silent and voiced"
        )
    if facts["utterances_too_short_for_their_text"] == len(spoken):
        raise RecipeError(
            f"{where}: every utterance has fewer frames than characters; check sampling rate and texts: a second has "
            "86 frames, and speech about 15 characters"
        )
