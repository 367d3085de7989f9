"""Speech synthesis through the engine: what a run learns, scores, saves and refuses."""

import json

import datasets
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from tiny_synthesis import MODES, PHONES, SPECTRA, spoken, tiny_speech

import trainers.evaluate as evaluate
import trainers.finetune as finetune
import trainers.synthesis_examples as synthesis_examples
from tinymyo_hf import TinyMyoForSpeechSynthesis
from tinymyo_hf.audio import mfcc
from tinymyo_hf.vocoder import VocoderError
from trainers.arguments import ModelArguments
from trainers.errors import CheckpointError, RecipeError
from trainers.synthesis import SpeechSynthesisTask
from trainers.synthesis_loss import SpeechFrames, SynthesisLoss
from trainers.synthesis_metrics import Prediction
from trainers.synthesis_report import synthesis_details
from trainers.word_metrics import word_errors

TINY = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return tiny_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture
def read(corpus, recipe_reader):
    return recipe_reader(
        corpus,
        task="speech_synthesis",
        preset="tinymyo-gaddy-synthesis",
        model_config=TINY,
        num_train_epochs=1,
        warmup_steps=2,
        max_samples=2000,
        piece_length=400,
    )


@pytest.fixture
def load_task(read):
    def make(data=None, **fields):
        _, of_data, arguments = read(data, **fields)
        return SpeechSynthesisTask.load(of_data, arguments)

    return make


@pytest.fixture
def train(read, monkeypatch):
    def run(plots=False, **fields):
        with monkeypatch.context() as patch:
            if not plots:
                patch.setattr(SpeechSynthesisTask, "write_plots", classmethod(lambda *args: None))
            return finetune.run(*read(**fields))

    return run


LEARNS = {"num_train_epochs": 10, "learning_rate": 1e-2, "max_samples": 1500}


def test_a_run_learns_reports_and_can_be_scored_again(train, read, tmp_path):
    results = train(plots=True, baselines=True, **LEARNS)
    scores, folder = results["runs"][0]["test"], tmp_path / "run"
    baselines = results["baselines"]
    assert scores["mel_distance"] < 0.6 * min(of["mel_distance"] for of in baselines.values())
    assert scores["phone_accuracy"] > 0.9
    assert {"spectrograms.png", "phones.png", "learning_curves.png"} <= {path.name for path in folder.iterdir()}

    # three examples: heard and shown
    assert len(scores["examples"]) == 3
    for number, example in enumerate(scores["examples"], 1):
        index = int(example["recording"].removeprefix("test"))
        _, targets, _, text = spoken("test", index, "silent")
        rate, audio = wavfile.read(folder / f"example_{number}_target.wav")
        assert (rate, len(audio), example["text"]) == (22050, 256 * len(targets), text)
        assert wavfile.read(folder / f"example_{number}_predicted.wav")[1].any()
        with np.load(folder / "examples.npz") as arrays:
            assert np.allclose(arrays[f"target_{number}"], targets, atol=0.01)
            assert np.abs(arrays[f"predicted_{number}"] - targets).mean() < 1.0

    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Mel distance" in card and "example_1_predicted.wav" in card and "Ridge" in card
    assert np.sum(scores["confusion"]) == sum(row["frames"] for row in scores["per_utterance"])
    assert json.loads((folder / "results.json").read_text(encoding="utf-8"))["phones"] == list(PHONES)

    model = TinyMyoForSpeechSynthesis.from_pretrained(folder)
    assert model.config.id2label == dict(enumerate(PHONES))
    again = evaluate.evaluate_checkpoint(str(folder), "tiny", tmp_path / "again", baselines=False)
    assert again["test"]["mel_distance"]["mean"] == pytest.approx(scores["mel_distance"], rel=1e-4)


@pytest.mark.slow
def test_silent_speech_teaches_what_speech_read_aloud_cannot(train, tmp_path):
    distances = {}
    for silent in ("use", "leave_out"):
        results = train(silent=silent, output_dir=str(tmp_path / silent), **LEARNS)
        distances[silent] = results["runs"][0]["test"]["mel_distance"]
    assert distances["use"] < 0.5 * distances["leave_out"]


def test_words_are_counted_in_what_a_recogniser_hears(monkeypatch, tmp_path):
    def hears(audios, references, asr_model, device):
        heard = ["one two" if len(audio) == 256 * 5 else "one" for audio in audios]
        return word_errors(references, heard) | {"predictions": heard, "asr_model": asr_model}

    monkeypatch.setattr(synthesis_examples, "asr_word_errors", hears)
    flat = np.full((12, 80), -4.0, np.float32)
    phones = np.zeros(12, int)
    predictions = [
        Prediction("a", flat[:5], phones[:5], flat[:7], phones[:7], True, "one two"),
        Prediction("b", flat[:9], phones[:9], flat[:5], phones[:5], True, "one two"),
    ]
    found = synthesis_examples.Voices(asr_model="anyone").word_errors(predictions, torch.device("cpu"))
    assert found == {"wer": 25.0, "wer_of_targets": 25.0, "asr_model": "anyone", "heard": ["one two", "one"]}
    assert synthesis_examples.Voices().word_errors(predictions, torch.device("cpu")) == {}
    scores = found | {"vocoder": "Griffin-Lim", "examples": [], "confusion": [[1, 0], [2, 3]]}
    card = synthesis_details({"runs": [{"seed": 0, "test": scores}], "kept_seed": 0, "phones": ["aa", "ss"]})
    assert "| predicted | 25.00 |" in card and "`anyone`" in card
    assert "| ss | aa | 2 | 40.0 |" in card and "| aa | ss |" not in card


def test_targets_of_both_features_and_scales(load_task):
    everything = np.concatenate(
        [spoken("train", number, mode)[1] for number, mode in enumerate(MODES["train"])]
    ).astype(np.float64)
    for features, values in (("log_mel", everything), ("mfcc", mfcc(everything, 26))):
        task = load_task(target_features=features)
        mean, std = task.target_statistics
        assert np.allclose(mean, values.mean(axis=0), atol=1e-4)
        assert std == pytest.approx((values - values.mean(axis=0)).std(), rel=1e-4)
        assert task.loss(task.options).scale == std
        model = task.build_model(ModelArguments(preset="tinymyo-gaddy-synthesis", model_config=TINY))
        assert model.config.num_mel_bins == values.shape[1]
        assert np.allclose(model.spectrogram_head.bias.detach(), mean, atol=1e-4)
    raw = load_task(target_scale="raw")
    assert raw.loss(raw.options).scale == 1.0


def test_the_loss_of_a_batch_is_that_of_its_utterances(read, corpus):
    model_arguments, data, arguments = read(model_config=TINY | {"phoneme_loss_weight": 0.2}, target_scale="raw")
    task = SpeechSynthesisTask.load(data, arguments)
    model = task.build_model(model_arguments).eval()
    trainer = finetune.make_trainer(model, task, arguments)
    items = [task.splits["train"][i] for i in (0, 11, 7)]
    batch = task.collate(items)
    with torch.no_grad():
        loss, outputs = trainer.label_loss(model, batch)
        alone = [model(item["input_values"][None]) for item in items]
    frames = [
        SpeechFrames(of.spectrogram[0], of.phoneme_logits[0], item["targets"], item["phones"].long(), silent)
        for of, item, silent in zip(alone, items, (False, True, False), strict=True)
    ]
    assert loss.item() == pytest.approx(SynthesisLoss(phone_weight=0.2)(frames).item(), rel=1e-4)
    # of speech read aloud, the loss is the model's own
    with torch.no_grad():
        own = model(
            items[0]["input_values"][None], labels=items[0]["targets"][None], phoneme_labels=items[0]["phones"][None]
        )
        of_task = trainer.label_loss(model, task.collate(items[:1]))[0]
    assert of_task.item() == pytest.approx(own.loss.item(), rel=1e-5)


def test_training_batches_are_packed_and_evaluation_whole(read):
    _, data, arguments = read()
    task = SpeechSynthesisTask.load(data, arguments)
    model = task.build_model(ModelArguments(preset="tinymyo-gaddy-synthesis", model_config=TINY))
    trainer = finetune.make_trainer(model, task, arguments)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_values"].shape[1:] == (4, 400)
    assert int(batch["lengths"].sum()) * 8 == int(batch["attention_mask"].sum()) <= 2000
    loss, outputs = trainer.label_loss(model, batch)
    assert loss.isfinite() and len(batch["targets"]) == len(batch["utterances"])


def test_utterances_are_those_the_recipe_names(load_task):
    assert load_task().subjects["train"] == ["1"] * 15
    assert [u.mode for u in load_task(silent="leave_out").splits["train"].utterances] == list(MODES["train"][:9])
    assert {u.mode for u in load_task(voiced="leave_out").splits["train"].utterances} == {"silent"}
    assert len(load_task(train_fraction=0.2).splits["train"]) == 3
    assert [u.mode for u in load_task(silent="leave_out").splits["test"].utterances] == ["silent"] * 3


def test_baselines_learn_from_speech_read_aloud(load_task):
    found = load_task(silent="leave_out").baselines()
    mean = np.concatenate([spoken("train", n, mode)[1] for n, mode in enumerate(MODES["train"][:9])]).mean(axis=0)
    targets = [spoken("test", number, "silent")[1] for number in range(3)]
    expected = np.linalg.norm(np.concatenate(targets) - mean, axis=1).mean()
    assert found["Mean of training"]["mel_distance"] == pytest.approx(expected, rel=1e-4)
    # channels mean other sounds in silence: ridge regression takes them for those of speech read aloud
    assert found["Ridge on time-domain features"]["phone_accuracy"] < 0.8
    assert (
        load_task(data=voiced_only(load_task().data)).baselines()["Ridge on time-domain features"]["phone_accuracy"]
        > 0.9
    )


def voiced_only(data):
    voiced = data["train"].filter(lambda row: row["mode"] != "silent")
    return datasets.DatasetDict({"train": voiced, "validation": voiced, "test": voiced})


def without(data, column):
    return datasets.DatasetDict({name: split.remove_columns(column) for name, split in data.items()})


def test_a_corpus_that_cannot_be_learned_from_is_refused(load_task, corpus):
    with pytest.raises(RecipeError, match="no column targets; prepare it with audio: true"):
        load_task(data=without(corpus[0], "targets"))
    with pytest.raises(RecipeError, match="silent=leave_out, voiced=use leaves to learn from"):
        only_silent = datasets.DatasetDict(corpus[0]) | {
            "train": corpus[0]["train"].filter(lambda row: row["mode"] == "silent")
        }
        load_task(data=datasets.DatasetDict(only_silent), silent="leave_out")
    short = corpus[0]["train"].map(lambda row: {"phones": row["phones"][:-1]})
    with pytest.raises(RecipeError, match=r"train split: train0 has \d+ frames of targets"):
        load_task(data=datasets.DatasetDict(corpus[0]) | {"train": short})

    def broken(row, index):
        return {"targets": [[float("nan")] * 80] * len(row["targets"])} if index == 4 else {}

    wrong = datasets.DatasetDict(corpus[0]) | {"train": corpus[0]["train"].map(broken, with_indices=True)}
    with pytest.raises(RecipeError, match="targets of train4 are not finite"):
        _ = load_task(data=wrong).target_statistics


def test_what_cannot_be_used_is_told_before_training(read, load_task, tmp_path):
    with pytest.raises(VocoderError):
        load_task(vocoder=str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="recogniser"):
        load_task(asr_model=str(tmp_path / "nowhere"))
    with pytest.raises(RecipeError, match="moves windows in time"):
        load_task(augmentations={"time_shift": {"max_samples": 2}})


def test_a_checkpoint_for_other_phones_is_refused(load_task, corpus):
    task = load_task()
    model = task.build_model(ModelArguments(preset="tinymyo-gaddy-synthesis", model_config=TINY))
    model.config.num_phonemes = 48
    with pytest.raises(CheckpointError, match="num_phonemes=48"):
        task.adopt("there", model, corpus[1])


def test_spectra_of_the_sounds_are_apart():
    assert np.linalg.norm(SPECTRA[1] - SPECTRA[2]) > 40
