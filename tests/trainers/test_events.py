"""Events through the engine: what a run writes, scores, learns from and refuses."""

import json
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from tiny_events import SECONDS, ReadsChannels, gestures_of, tiny_gestures
from transformers import EvalPrediction, pipeline

import trainers.events as events
import trainers.finetune as finetune
from tinymyo_hf import TinyMyoConfig, TinyMyoForPreTraining
from tinymyo_hf.event_detection import FrameGrid
from trainers.arguments import EventsArguments, ModelArguments
from trainers.errors import RecipeError
from trainers.event_baselines import block_log_power
from trainers.events import EventsTask
from trainers.optim import LayerwiseTrainer

TINY = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return tiny_gestures(tmp_path_factory.mktemp("events"))


@pytest.fixture
def task(corpus):
    return make_task(corpus)


def make_task(corpus):
    return EventsTask(*corpus, "tiny", FrameGrid())


@pytest.fixture
def load(corpus, recipe_reader):
    return recipe_reader(
        corpus,
        task="events",
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        model_config=TINY,
        augmentations={},
    )


@pytest.fixture
def load_task(load):
    def make(data=None, **fields):
        _, arguments_of_data, arguments = load(data, **fields)
        return EventsTask.load(arguments_of_data, arguments)

    return make


def scored(task, model, split="test"):
    return task.score(SimpleNamespace(model=model, args=SimpleNamespace(per_device_eval_batch_size=2)), split)


def test_a_detector_that_knows_makes_no_error(task):
    scores = scored(task, ReadsChannels())
    events = sum(len(gestures_of(f"test{i}", seconds)[0]) for i, seconds in enumerate(SECONDS["test"]))
    assert (scores["events"], scores["recordings"]) == (events, 2)
    assert (scores["cler"], scores["f1"]) == (0.0, 1.0)
    assert scores["misses_per_hour"] == scores["false_activations_per_hour"] == 0.0
    assert [row["recording"] for row in scores["per_recording"]] == ["test0", "test1"]
    json.dumps(scores, allow_nan=False)


def test_a_detector_that_knows_nothing_has_no_cler(task):
    model = ReadsChannels()
    model.weight.data.fill_(0.0)  # probabilities of one half, above the threshold from the start: one event of each
    scores = scored(task, model)
    assert scores["f1"] < 0.2
    model = torch.nn.Module.__new__(ReadsChannels)
    ReadsChannels.__init__(model)
    model.forward = lambda input_values: SimpleNamespace(logits=torch.full((len(input_values), 198, 9), -9.0))
    silent = scored(task, model, "validation")
    assert (silent["cler"], silent["f1"]) == (None, 0.0)


def test_scores_during_training_are_those_of_windows(task):
    items = [task.splits["validation"][i] for i in range(len(task.splits["validation"]))]
    labels = np.stack([item["labels"] for item in items])
    assert labels.sum() > 50
    scores = task.headline(EvalPrediction(predictions=8 * labels - 4, label_ids=labels))
    assert (scores["cler"], scores["f1"], scores["misses_per_hour"]) == (0.0, 1.0, 0.0)
    # each gesture taken for the next but the releases, whose prediction then falls away: only wrong or missed
    wrong = task.headline(EvalPrediction(predictions=8 * np.roll(labels, 1, axis=2) - 4, label_ids=labels))
    assert (wrong["cler"], wrong["f1"]) == (1.0, 0.0)
    nothing = task.headline(EvalPrediction(predictions=0 * labels - 4, label_ids=labels))
    assert nothing["f1"] == 0.0
    assert "cler" not in nothing


def test_frames_beyond_a_short_recording_do_not_count(task):
    # the second window ends after 40 frames; what the network says about its padding is no false activation
    items = [task.splits["validation"][0], task.splits["validation"][1]]
    items[1] = items[1] | {"labels": items[1]["labels"][:40], "input_values": items[1]["input_values"][:, :411]}
    items[1]["loss_mask"] = items[1]["loss_mask"][:40]
    labels = task.collate(items)["labels"].numpy()
    logits = np.where(labels == -100, 4.0, 8 * labels - 4)
    scores = task.headline(EvalPrediction(predictions=logits, label_ids=labels))
    assert (scores["f1"], scores["false_activations_per_hour"]) == (1.0, 0.0)


def test_baselines_find_bursts(task):
    for name, scores in task.baselines().items():
        assert scores["f1"] > 0.9, name
        assert scores["cler"] < 0.05, name
        assert scores["fit_seconds"] >= 0


def test_baselines_see_no_more_than_the_network(load_task, monkeypatch):
    seen = []
    monkeypatch.setattr(events, "run_event_baselines", lambda train, *rest: seen.append(list(train)))
    for share in (1.0, 0.2):
        task = load_task(train_fraction=share)
        task.baselines()
    whole, part = seen
    assert sorted(recording.seconds for recording in whole) == sorted(SECONDS["train"])
    assert [recording.seconds for recording in part] == [1.0] * 3  # of 16 windows
    events_of = [sum(len(recording.events) for recording in recordings) for recordings in seen]
    assert 0 < events_of[1] < 0.5 * events_of[0]


def test_power_in_blocks():
    signal = np.repeat([[1.0, 3.0, 5.0]], 50, axis=2 - 1).reshape(1, -1)[:, :130]
    # blocks of 50 samples at 2 kHz: mean squares 1 and 9, the rest is no whole block
    np.testing.assert_allclose(np.exp(block_log_power(signal, 2000)), [[1.0], [9.0]], rtol=1e-5)


def test_a_run_from_end_to_end(load, tmp_path, corpus):
    results = finetune.run(*load(baselines=True))
    folder = tmp_path / "run"
    assert results["task"] == "emg-events"
    assert results["recordings"] == {"train": 3, "validation": 1, "test": 2}
    assert results["windows"] == {"train": 16, "validation": 3, "test": 6}
    assert set(results["baselines"]) == {"Power threshold", "LDA on channel power"}
    for name in ("events.png", "per_gesture.png", "confusion_matrix.png", "learning_curves.png"):
        assert (folder / name).stat().st_size > 5000
    card = (folder / "README.md").read_text()
    assert "thumb_click" in card and "emg-events" in card and "LDA on channel power" in card
    assert "| TinyMyo |" in results["summary"] and "CLER" in results["summary"]

    # the pipeline finds in the recording what was scored
    recording = next(make_task(corpus).recordings("test"))
    detect = pipeline("emg-events", model=str(folder))
    assert detect.feature_extractor.stride == 500  # a quarter of the window
    found = detect(recording.signal.numpy(), sampling_rate=2000)["events"]
    scored = results["runs"][0]["test"]["example"]["detected"]
    assert [[event["gesture"], pytest.approx(event["time"], abs=1e-3)] for event in found] == scored


def test_the_head_starts_at_the_rate_of_the_pulses(task):
    model = task.build_model(ModelArguments(preset="tinymyo-neuromotor", model_config=TINY))
    counts = np.zeros(9)
    for i, seconds in enumerate(SECONDS["train"]):
        np.add.at(counts, gestures_of(f"train{i}", seconds)[0], 1)
    rates = counts * 0.04 / sum(SECONDS["train"])
    expected = np.maximum(rates, 1e-4)
    np.testing.assert_allclose(model.frame_classifier.bias.sigmoid().detach(), expected, rtol=1e-4)
    assert model.config.is_causal and model.config.num_channels == 9
    assert model.config.id2label[4] == "thumb_click"


def test_from_a_pretrained_encoder(task, tmp_path):
    pretrained = TinyMyoForPreTraining(TinyMyoConfig(**TINY, num_channels=4))
    pretrained.save_pretrained(tmp_path)
    model = task.build_model(ModelArguments(model_name_or_path=str(tmp_path)))
    weights = dict(pretrained.tinymyo.named_parameters())
    shared = [name for name, _ in model.tinymyo.named_parameters() if name.startswith(("layers.", "norm."))]
    assert shared
    for name in shared:
        torch.testing.assert_close(model.tinymyo.get_parameter(name), weights[name])
    item = task.splits["train"][0]
    batch = task.collate([item])
    assert torch.isfinite(model(**batch).loss)


def test_training_windows_move_and_others_do_not(load_task):
    task = load_task(train_fraction=0.5)
    assert len(task.splits["train"]) == len(task.subjects["train"]) == 8
    starts = []
    for epoch in range(2):
        task.splits["train"].set_epoch(epoch)
        starts.append([task.splits["train"][i]["start"] for i in range(8)])
    assert starts[0] != starts[1]
    assert [task.splits["validation"][i]["start"] for i in range(3)] == [0, 2000, 4000]


def test_the_schedule_of_the_paper(tmp_path):
    arguments = EventsArguments(
        output_dir=str(tmp_path), report_to="none", eval_strategy="no", load_best_model_at_end=False
    )
    trainer = LayerwiseTrainer(model=torch.nn.Linear(2, 2), args=arguments)
    trainer.create_optimizer_and_scheduler(num_training_steps=1000)  # 4 per epoch
    rates = []
    for _ in range(200):
        rates.append(trainer.lr_scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    # 5 epochs of warm-up, halved after 25
    assert [rates[i] for i in (0, 10, 20, 99, 100, 199)] == pytest.approx([0, 2.5e-4, 5e-4, 5e-4, 2.5e-4, 2.5e-4])
    assert arguments.greater_is_better  # F1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"augmentations": {"time_shift": {}}}, "time_shift moves windows in time"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"metric_for_best_model": "cler"}, "metric_for_best_model=cler: it is undefined until .* select by f1"),
        ({"lr_drop_factor": 0.0}, "lr_drop_epochs"),
        ({"lr_drop_epochs": [0.0]}, "lr_drop_epochs"),
    ],
)
def test_refused_fields(load_task, fields, message):
    with pytest.raises(RecipeError, match=message):
        load_task(**fields)


def changed(corpus, change):
    """The corpus with the rows of its train split changed by a function."""
    data = datasets.DatasetDict(corpus[0])
    data["train"] = data["train"].map(change)
    return data


def test_events_that_cannot_be_used(load_task, corpus):
    def move(row):
        moved = [event | {"start": event["start"] + 1e6} for event in row["events"]]
        return {"events": moved}

    with pytest.raises(RecipeError, match=r"train split, recording train0: the event at sample 1.*e.06 lies outside"):
        load_task(changed(corpus, move))
    with pytest.raises(RecipeError, match="no events"):
        load_task(datasets.DatasetDict({name: split.remove_columns("events") for name, split in corpus[0].items()}))
    with pytest.raises(RecipeError, match="stores windows"):
        load_task(datasets.DatasetDict({n: split.remove_columns("recording_length") for n, split in corpus[0].items()}))
    names = {
        "events": [{"name": datasets.Value("string"), **dict.fromkeys(("start", "end"), datasets.Value("float64"))}]
    }
    with pytest.raises(RecipeError, match="free text"):
        load_task(
            datasets.DatasetDict({n: s.cast(datasets.Features(s.features | names)) for n, s in corpus[0].items()})
        )


def test_windows_that_cannot_overlap(corpus):
    data, extractor = corpus
    short = type(extractor)(**extractor.to_dict() | {"window_length": 20, "stride": 20})
    with pytest.raises(RecipeError, match="window_length=20: events need windows of at least 40"):
        EventsTask(data, short, "tiny", FrameGrid())
