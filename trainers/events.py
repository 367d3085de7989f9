"""Detection of events (discrete gestures), frame by frame: a task of `finetune.run`.

The network is trained on windows and scored on whole recordings, through windowed inference (`tinymyo_hf.
event_detection`), as it is used. During training each validation window counts as a recording of its own, which is
cheaper: weights are selected by F1 of the events. Unlike CLER, it is defined as soon as there are events, and counts
what CLER leaves out: one certain detection, and nothing else, would have the best CLER there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from dataset_builders.continuous_view import IGNORED_LABEL, ContinuousDataset, Cutting
from tinymyo_hf import TinyMyoFeatureExtractor
from tinymyo_hf.event_detection import FrameGrid, TimedEvents, detect_events, sigmoid
from tinymyo_hf.event_inference import event_logits
from tinymyo_hf.tinymyo.modeling_tinymyo_frames import TinyMyoForFrameClassification
from trainers.arguments import DataArguments, EventsArguments, ModelArguments
from trainers.augmentation import AUGMENTATIONS_IN_TIME
from trainers.errors import RecipeError
from trainers.event_baselines import PowerRecording, block_log_power, run_event_baselines
from trainers.event_corpus import check_corpus, inference_stride, pulse_rates, recording_lengths, window_subjects
from trainers.event_metrics import EventCounts, count_events, event_scores
from trainers.event_report import excerpt, gesture_tables, plot_event_results
from trainers.event_targets import EventTargets, collate_event_windows
from trainers.models import build_model
from trainers.report import Column, plot_histories
from trainers.subsets import WindowShare
from trainers.tasks import Scores, Task, read_corpus, split_facts

COLUMNS = (
    Column("cler", "CLER", digits=4, metric_type="cler"),
    Column("f1", "F1", 100, metric_type="f1"),
    Column("misses_per_hour", "Misses/h", digits=0),
    Column("false_activations_per_hour", "False activations/h", digits=0),
    Column("cler_pooled", "CLER, pooled", digits=4),
)


@dataclass(frozen=True)
class EventRecording:
    """A recording with its events.

    Attributes:
        name, subject: of the recording.
        signal: float32 (channels, time).
        events: the true ones.
        seconds: its length.
    """

    name: str
    subject: str
    signal: torch.Tensor
    events: TimedEvents
    seconds: float


class EventsTask(Task):
    """Recordings with events.

    Attributes:
        labels: gestures in the order of their ids.
        num_channels: electrodes.
        data: split -> its stored recordings.
        subjects: split -> (windows,) names.
        targets: what windows are labelled with.
    """

    name = "emg-events"
    model_class = TinyMyoForFrameClassification
    columns = COLUMNS

    def __init__(
        self,
        data: datasets.DatasetDict,
        extractor: TinyMyoFeatureExtractor,
        corpus: str,
        grid: FrameGrid,
        seed: int = 0,
    ):
        """`data`: splits whose rows are recordings, with the columns events and subject; `grid`: of the model's frames;
        `seed`: of the jitter of training windows."""
        names = next(iter(data.values())).features["events"].feature["name"].names
        self.targets = EventTargets(tuple(names), grid)
        length, stride = extractor.window_length, extractor.stride
        cuttings = {
            name: Cutting(length, stride, jitter=True) if name == "train" else Cutting(length, length) for name in data
        }
        views = {
            name: ContinuousDataset(split, cuttings[name], transform=self.targets, seed=seed)
            for name, split in data.items()
        }
        # Windows overlap at inference, whatever they do in training; the pipeline reads it from the extractor.
        overlapping = extractor.replace(stride=inference_stride(length, grid))
        super().__init__(views, overlapping, corpus, collate_event_windows)
        self.data = data
        self.labels = list(names)
        self.num_channels = extractor.feature_size
        self.subjects = {name: window_subjects(split, cuttings[name]) for name, split in data.items()}

    @classmethod
    def load(cls, data: DataArguments, arguments: EventsArguments) -> EventsTask:
        wrong = [name for name in AUGMENTATIONS_IN_TIME if name in arguments.augmentations]
        if wrong:
            raise RecipeError(f"augmentations: {wrong[0]} moves windows in time but not their events; remove it")
        if arguments.label_smoothing_factor:
            raise RecipeError("label_smoothing_factor: events are trained on pulses of 0 and 1; leave it out")
        if arguments.selection_metric in ("cler", "cler_pooled"):
            raise RecipeError(
                f"metric_for_best_model={arguments.selection_metric}: it is undefined until events are detected, and "
                "best where hardly any are; select by f1"
            )
        corpus, extractor = read_corpus(data, ("train", "validation"))
        task = cls.from_splits(corpus, extractor, data, arguments.seeds[0])
        if data.train_fraction < 1:
            task.splits["train"] = WindowShare(task.splits["train"], data.train_fraction, data.train_fraction_seed)
            task.subjects["train"] = [task.subjects["train"][i] for i in task.splits["train"].indices]
        return task

    @classmethod
    def from_splits(
        cls, corpus: datasets.DatasetDict, extractor: TinyMyoFeatureExtractor, data: DataArguments, seed: int = 0
    ) -> EventsTask:
        check_corpus(corpus, extractor, data.dataset)
        return cls(corpus, extractor, data.dataset, FrameGrid(sampling_rate=extractor.sampling_rate), seed)

    def describe_outputs(self) -> str:
        return f"{len(self.labels)} gestures"

    def build_model(self, arguments: ModelArguments) -> nn.Module:
        head = {
            "num_channels": self.num_channels,
            "stem": "convolution",
            "stem_kernel_size": self.targets.grid.kernel_size,
            "stem_stride": self.targets.grid.stride,
            "is_causal": arguments.model_config.get("is_causal", True),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
        }
        model = build_model(self.model_class, arguments, head, new_encoder_parts=("stem",))
        start_at_rate(model, pulse_rates(self.data["train"], self.extractor.sampling_rate))
        return model

    def headline(self, prediction: EvalPrediction) -> dict[str, float]:
        counts = [
            self._count_window(logits, labels)
            for logits, labels in zip(prediction.predictions, prediction.label_ids, strict=True)
        ]
        scores = event_scores(counts, self.labels)
        # CLER of all windows together: a window holds too few events for one of its own
        shown = {column.key: scores[column.key] for column in self.columns} | {"cler": scores["cler_pooled"]}
        return {key: value for key, value in shown.items() if value is not None}

    def _count_window(self, logits: np.ndarray, labels: np.ndarray) -> EventCounts:
        real = labels[:, 0] != IGNORED_LABEL  # other windows of the split may be longer
        logits, labels = logits[real], labels[real]
        times = self.targets.grid.times(len(labels))
        truth = TimedEvents(*self.targets.event_times(labels))
        found = detect_events(sigmoid(logits), times, self.labels)
        return count_events(truth, found, self.labels, times[-1])

    def recordings(self, split: str) -> Iterator[EventRecording]:
        """The recordings of a split, one at a time."""
        yield from self._recordings(ContinuousDataset(self.data[split], Cutting(), ["subject"]))

    def _learned_from(self) -> Iterator[EventRecording]:
        """The training recordings; where a share of their windows is learned from, each of these windows."""
        share = self.splits["train"]
        if not isinstance(share, WindowShare):
            return self.recordings("train")
        cutting = replace(share.dataset.cutting, jitter=False)
        windows = ContinuousDataset(self.data["train"], cutting, ["subject"])
        return self._recordings(torch.utils.data.Subset(windows, share.indices))

    def _recordings(self, view: torch.utils.data.Dataset) -> Iterator[EventRecording]:
        rate = self.extractor.sampling_rate
        for item in view:
            signal = item["input_values"]
            events = TimedEvents(item["event_ids"].numpy(), item["event_starts"].numpy() / rate)
            yield EventRecording(item["recording"], item["subject"], signal, events, signal.shape[-1] / rate)

    def score(self, trainer: Trainer, split: str) -> Scores:
        window, batch_size = self.extractor, trainer.args.per_device_eval_batch_size
        model = trainer.model.eval()
        grid = FrameGrid.of(model.config, window.sampling_rate)
        counts, rows, example = [], [], None
        for recording in self.recordings(split):
            logits = event_logits(
                model, recording.signal, window.sampling_rate, window.window_length, window.stride, batch_size
            )
            probabilities = sigmoid(logits)
            times = grid.times(len(probabilities))
            found = detect_events(probabilities, times, self.labels)
            counts.append(count_events(recording.events, found, self.labels, recording.seconds))
            scores = event_scores(counts[-1:], self.labels)
            kept = {column.key: scores[column.key] for column in self.columns[:4]}
            rows.append({"recording": recording.name, "subject": recording.subject, **kept})
            if example is None:
                example = excerpt(recording.name, probabilities, times, recording.events, found, self.labels)
        return {**event_scores(counts, self.labels), "per_recording": rows, "example": example}

    def baselines(self) -> dict[str, Scores]:
        train, test = map(self._powers, (self._learned_from(), self.recordings(self.test_split)))
        return run_event_baselines(train, test, self.labels)

    def _powers(self, recordings: Iterator[EventRecording]) -> Iterator[PowerRecording]:
        for recording in recordings:
            power = block_log_power(recording.signal.numpy(), self.extractor.sampling_rate)
            yield PowerRecording(power, recording.events, recording.seconds)

    def facts(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "recordings": {name: len(recording_lengths(split)) for name, split in self.data.items()},
            **split_facts(self, self.subjects),
        }

    @classmethod
    def write_plots(cls, results: Mapping[str, Any], folder: Path) -> None:
        plot_event_results(results, folder)
        plot_histories(results, cls.columns[1:], folder)

    @classmethod
    def card(cls, results: Mapping[str, Any]) -> dict[str, str]:
        labels, window = results["labels"], results["window"]
        return {
            "model": f"Detector of {len(labels)} discrete gestures in surface EMG: {', '.join(labels)}.",
            "use": (
                'detect = pipeline("emg-events", model="PATH_OR_HUB_ID")\n'
                f'print(detect("recording.npy", sampling_rate={window["sampling_rate"]:g})["events"])'
            ),
            "scores": (
                "CLER is the classification error rate of Kaifosh et al. (Nature, 2025): of the events that were "
                "detected, the share taken for\nanother gesture, averaged over gestures and then over recordings (or "
                "from all recordings pooled). It leaves out events\nthat were missed and false activations, which are "
                "counted beside it; F1 counts all of them. A prediction is an upward\ncrossing of probability 0.35, "
                "and belongs to an event from 50 ms before to 250 ms after it. A\nrelease counts only while its finger "
                "is pressed, as the true events say: taking one finger's release for the other's\nis no error. The "
                "baselines are described in\n"
                "`trainers/event_baselines.py`; their thresholds are the best in F1 on the training split."
            ),
            "details": gesture_tables(results),
            "limits": f"Measured only on the subjects, electrodes and gestures of `{results['dataset']}`.",
        }


def start_at_rate(model: nn.Module, rates: np.ndarray) -> None:
    """Let a fresh head predict how often frames lie in a pulse of each gesture, `rates` (gestures,).

    That is a few in a thousand; starting from one half, as many steps as there are in a short training go into it.
    """
    odds = np.clip(rates, 1e-4, 1 - 1e-4)
    bias = torch.from_numpy(np.log(odds / (1 - odds)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "frame_classifier" in name and name.endswith("bias"):  # with adapters there are two
                parameter.copy_(bias)
