"""Speech recognition through the engine: what a run learns, scores, saves and refuses."""

import dataclasses
import json

import datasets
import numpy as np
import pytest
import torch
from test_finetune import Killed, kill_at
from tiny_utterances import MODES, WORDLESS, WORDS, sentence, spoken, tiny_utterances
from transformers import AutoModelForCTC, EvalPrediction

import trainers.evaluate as evaluate
import trainers.finetune as finetune
import trainers.recognition_decoding as decoding
from tinymyo_hf.lexicon import read_lexicon, write_lexicon
from tinymyo_hf.speech_text import SPEECH_CHARACTERS
from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.arguments import ModelArguments
from trainers.errors import RecipeError
from trainers.recognition import RecognitionTask, frames_needed
from trainers.recognition_baselines import align, central_sentence
from trainers.recognition_decoding import Recognised, recognition_scores

TINY = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
LEARNS = {
    "num_train_epochs": 12, "learning_rate": 1e-2, "warmup_steps": 10, "max_samples": 2400, "eval_strategy": "steps",
    "save_strategy": "steps", "eval_steps": 28, "save_steps": 28,
}  # fmt: skip


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return tiny_utterances(tmp_path_factory.mktemp("utterances"))


@pytest.fixture
def read(corpus, recipe_reader):
    return recipe_reader(
        corpus,
        task="speech_recognition",
        preset="tinymyo-gaddy-recognition",
        model_config=TINY,
        num_train_epochs=1,
        warmup_steps=2,
        max_samples=1600,
        piece_length=400,
    )


@pytest.fixture
def load(read):
    def make(data=None, **fields):
        _, of_data, arguments = read(data, **fields)
        return RecognitionTask.load(of_data, arguments)

    return make


def test_utterances_are_whole_frames_with_their_text(load):
    task = load(max_shift=0)
    assert [len(split) for split in task.splits.values()] == [29, 4, 5]  # but the one without words
    names = [u.name for u in task.splits["train"].utterances]
    assert WORDLESS not in names and task.texts["train"]["utterances_without_text"] == 1
    item = task.splits["train"][14 - 1]  # "train14"
    assert names[13] == "train14" and task.splits["train"].utterances[13].silent
    emg, _ = spoken("train", 14, "silent")
    assert torch.equal(item["input_values"], torch.from_numpy(emg[:, : emg.shape[1] // 8 * 8]))
    assert [SPEECH_CHARACTERS[i] for i in item["labels"]] == list(sentence("train", 14))
    assert task.texts["test"]["words"] == sum(len(sentence("test", i).split()) for i in range(5))


def test_training_utterances_begin_a_little_later_each_epoch(load):
    task = load()
    plain = load(max_shift=0).splits["train"][0]["input_values"]
    shifts = set()
    for epoch in range(12):
        task.splits["train"].set_epoch(epoch)
        moved = task.splits["train"][0]["input_values"]
        assert moved.shape == plain.shape
        fits = [
            k for k in range(8) if torch.equal(moved[:, : moved.shape[1] - k], plain[:, k:]) and not moved[:, -k:].any()
        ] if not torch.equal(moved, plain) else [0]  # fmt: skip
        assert len(fits) == 1
        shifts |= set(fits)
    assert len(shifts) > 3 and max(shifts) <= 7
    task.splits["validation"].set_epoch(1)
    assert torch.equal(task.splits["validation"][0]["input_values"], load().splits["validation"][0]["input_values"])


@pytest.mark.parametrize(("option", "left"), [("silent", 21), ("voiced", 8)])
def test_modes_can_be_left_out_of_training_alone(load, option, left):
    task = load(**{option: "leave_out"})
    assert [len(split) for split in task.splits.values()] == [left, 4, 5]
    with pytest.raises(RecipeError, match="nothing is left"):
        load(silent="leave_out", voiced="leave_out")


def test_packed_and_padded_batches_have_the_loss_of_their_utterances(read):
    """What the model gives per utterance is put back together: with a model without attention beyond a frame, pieces
    make no difference but at their edges, so the loss of padded batches is that of single utterances exactly."""
    model_arguments, data, arguments = read(packing="utterances")
    task = RecognitionTask.load(data, arguments)
    torch.manual_seed(0)
    model = task.build_model(model_arguments).eval()
    trainer = finetune.make_trainer(model, task, arguments)
    items = [task.splits["validation"][i] for i in range(3)]
    batch = trainer.train_collator(items)
    with torch.no_grad():
        together = trainer.label_loss(model, batch)[0]
        alone = [model(i["input_values"][None], labels=i["labels"][None]).loss for i in items]
    assert together.item() == pytest.approx(np.mean([loss.item() for loss in alone]), rel=1e-5)

    arguments.packing = "pieces"
    packed = trainer.train_collator(items)
    assert packed["input_values"].shape[1:] == (4, 400) and len(packed["input_values"]) != 3
    outputs = model(packed["input_values"], packed["attention_mask"])
    flat = outputs.logits.flatten(0, 1)[: int(packed["lengths"].sum())]
    loss, start = 0.0, 0
    for item, frames in zip(items, packed["lengths"].tolist(), strict=True):
        log_probs = flat[start : start + frames, None].log_softmax(-1)
        loss += torch.nn.functional.ctc_loss(
            log_probs, item["labels"][None], torch.tensor([frames]), torch.tensor([len(item["labels"])]), blank=37
        ).item()
        start += frames
    assert trainer.label_loss(model, packed)[0].item() == pytest.approx(loss / 3, rel=1e-5)


def test_scores_during_training_are_greedy(load):
    task = load()
    ids = {character: i for i, character in enumerate(SPEECH_CHARACTERS)} | {"-": 37}
    labels = [[ids[c] for c in "ab ba"], [ids[c] for c in "cab"] + [-100, -100]]
    frames = [[ids[c] for c in "a-b  b-aa"], [ids[c] for c in " ccab-"] + [-100] * 3]
    scores = task.headline(EvalPrediction(predictions=np.array(frames), label_ids=np.array(labels)))
    assert scores == {"wer": 0.0, "cer": 0.0}
    frames[1][:6] = [ids[c] for c in "c--a--"]
    scores = task.headline(EvalPrediction(predictions=np.array(frames), label_ids=np.array(labels)))
    assert scores["wer"] == pytest.approx(100 / 3) and scores["cer"] == pytest.approx(100 / 8)


def test_scores_by_mode_and_with_the_word_decoder(load):
    of = load().splits["train"].utterances[:2]
    silent = dataclasses.replace(of[0], mode="silent", text="ab ba", samples=800)
    voiced = dataclasses.replace(of[1], mode="voiced", text="cab", samples=800)
    found = [Recognised(silent, "ab b", "ab ba", (0.5, 1.5)), Recognised(voiced, "cab", "cab", (0.5, 0.5))]
    scores = recognition_scores(found, frame_rate=100.0)  # 2 s
    assert scores["wer"] == pytest.approx(100 / 3) and scores["wer_lm"] == 0.0
    assert {row["mode"]: (row["wer"], row["wer_lm"]) for row in scores["per_mode"]} == {
        "silent": (50.0, 0.0),
        "voiced": (0.0, 0.0),
    }
    assert (scores["real_time_factor"], scores["real_time_factor_lm"]) == (0.5, 1.5)
    assert scores["examples"][0]["said"] == "ab ba"
    without = recognition_scores([dataclasses.replace(item, beam=None) for item in found], 100.0)
    assert "wer_lm" not in without and "real_time_factor_lm" not in without


def test_a_run_from_end_to_end(read, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.recognition_baselines.ROUNDS", 2)
    results = finetune.run(*read(**LEARNS, baselines=True))
    folder = tmp_path / "run"
    assert (results["task"], results["family"]) == ("emg-to-text", "TinyMyo")
    run = results["runs"][0]
    assert results["test"]["wer"]["mean"] < 40 and results["test"]["wer_lm"]["mean"] < 20
    best = min(row["wer"] for row in run["history"])
    assert next(row for row in run["history"] if row["best"])["wer"] == best
    assert results["test"]["wer_lm"]["mean"] < results["baselines"]["One sentence for all"]["wer"]
    assert set(results["baselines"]) == {"One sentence for all", "LDA, frame by frame"}
    for name in ("words.png", "learning_curves.png"):
        assert (folder / name).stat().st_size > 5000
    card = (folder / "README.md").read_text()
    assert "| silent | 5 |" in card and "Examples" in card and "1 utterances of train have no text" in card

    # words come from the training texts alone, and are saved
    trained = {word for i in range(len(MODES["train"])) for word in sentence("train", i).split()}
    assert set(read_lexicon(folder / "lexicon.txt")) == trained <= set(WORDS)
    assert "\\4-grams:" in (folder / "lm.arpa").read_text()

    # what was saved recognises what was scored
    model, tokenizer = AutoModelForCTC.from_pretrained(folder).eval(), EmgCharacterTokenizer.from_pretrained(folder)
    emg, _ = spoken("test", 0, "silent")
    with torch.no_grad():
        ids = model(torch.from_numpy(emg[None, :, : emg.shape[1] // 8 * 8])).logits[0].argmax(-1).tolist()
    assert " ".join(tokenizer.decode(ids, group_tokens=True).split()) == run["test"]["examples"][0]["greedy"]

    scored = evaluate.evaluate_checkpoint(str(folder), "tiny", tmp_path / "evaluation", baselines=False)
    for key in ("wer", "wer_lm", "examples", "per_mode"):
        assert scored["runs"][0]["test"][key] == run["test"][key]
    assert "By mode of speaking (split test" in (tmp_path / "evaluation/report.md").read_text()
    json.dumps(results, allow_nan=False)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(read, tmp_path, monkeypatch):
    """In the middle of an epoch, after the learning rate has fallen."""
    fields = {
        "num_train_epochs": 2, "warmup_steps": 1, "plateau_patience": 0, "learning_rate": 1e-3, "phone_weight": 0.5,
        "save_strategy": "steps", "save_steps": 5, "eval_strategy": "steps", "eval_steps": 5,
        "metric_for_best_model": "loss",
    }  # fmt: skip
    rates = []
    monkeypatch.setattr("trainers.speech_trainer.PlateauRate.THRESHOLD", 0.5)  # so that it falls soon
    whole = finetune.run(*read(**fields, output_dir=str(tmp_path / "whole")))
    with monkeypatch.context() as patched:
        kill_at(patched, 12)
        with pytest.raises(Killed):
            finetune.run(*read(**fields))
    make_trainer = finetune.make_trainer

    def keep(*arguments):
        trainer = make_trainer(*arguments)
        lower = trainer._lower_rate
        trainer._lower_rate = lambda: (lower(), rates.append(trainer.lr_scheduler.get_last_lr()[0]))
        return trainer

    monkeypatch.setattr(finetune, "make_trainer", keep)
    again = finetune.run(*read(**fields))
    assert rates and rates[0] < 0.5e-3  # it had fallen before
    for row, other in zip(again["runs"][0]["history"], whole["runs"][0]["history"], strict=True):
        # of the library's mean of the training loss, the steps before the interruption are lost
        assert row | {"train_loss": None} == other | {"train_loss": None}
    assert again["runs"][0]["validation"] == whole["runs"][0]["validation"]
    assert again["runs"][0]["test"]["examples"] == whole["runs"][0]["test"]["examples"]
    assert again["parameters"] == whole["parameters"]


def test_phones_are_learned_of_what_was_read_aloud(load, corpus):
    task = load(phone_weight=0.5, max_shift=0)
    names = [u.name for u in task.splits["train"].utterances]
    aloud, silent = (task.splits["train"][names.index(name)] for name in ("train0", "train14"))
    assert aloud["phones"].tolist() == spoken("train", 0, "voiced")[1].tolist()
    assert set(silent["phones"].tolist()) == {-100} and len(silent["phones"]) == silent["input_values"].shape[1] // 8
    assert "phones" not in task.splits["validation"][0]
    assert task.collate([aloud, silent])["phones"].shape == (len(aloud["phones"]) + len(silent["phones"]),)
    model = task.build_model(ModelArguments(preset="tinymyo-gaddy-recognition", model_config=TINY))
    assert model.phone_head.weight.shape == (5, 24)
    with pytest.raises(RecipeError, match="phone_weight: .* lora"):
        task.build_model(ModelArguments(preset="tinymyo-gaddy-recognition", model_config=TINY, lora=True))
    without = datasets.DatasetDict({name: split.remove_columns("phones") for name, split in corpus[0].items()})
    with pytest.raises(RecipeError, match="has no phones.*audio: true"):
        load(without, phone_weight=0.5)


def test_bf16_trains(read):
    results = finetune.run(*read(bf16=True, max_samples=100_000))
    assert np.isfinite(results["runs"][0]["history"][0]["validation_loss"])


def test_words_of_the_user(read, tmp_path):
    write_lexicon(["ab", "cab"], tmp_path / "mine.txt")
    task = RecognitionTask.load(*read(lexicon_path=str(tmp_path / "mine.txt"))[1:])
    assert task.words.lexicon == ["ab", "cab"]
    task.words.save(tmp_path)
    loaded = decoding.Words.of_checkpoint(str(tmp_path), task.options)
    assert loaded.lexicon == ["ab", "cab"] and loaded.model == tmp_path / "lm.arpa"
    for fields, message in (
        ({"lexicon_path": str(tmp_path / "no.txt")}, "lexicon_path:.*no.txt"),
        ({"lm_path": str(tmp_path / "no.arpa")}, "lm_path:.*no.arpa.*build-lm"),
        ({"lm_path": str(tmp_path / "mine.txt")}, "lm_path:.*mine.txt"),  # a file, but no language model
    ):
        with pytest.raises(RecipeError, match=message):
            RecognitionTask.load(*read(**fields)[1:])


def test_without_the_extra_scores_are_greedy(load, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "flashlight.lib.text.decoder", None)
    assert load()._decoder("test") is None
    assert r"tinymyo-hf[ctc]" in capsys.readouterr().out


def test_what_cannot_be_learned_from_is_refused(load, corpus):
    def changed(split, **columns):
        return datasets.DatasetDict(corpus[0]) | {split: corpus[0][split].map(lambda row: columns)}

    with pytest.raises(RecipeError, match="validation split: no utterance with a text"):
        load(changed("validation", text="?!"))
    with pytest.raises(RecipeError, match="every utterance has fewer frames than characters"):
        load(changed("train", text="a b" * 400))
    with pytest.raises(RecipeError, match="no column text"):
        load(datasets.DatasetDict({name: split.remove_columns("text") for name, split in corpus[0].items()}))
    with pytest.raises(RecipeError, match="moves windows in time"):
        load(augmentations={"time_shift": {}})
    with pytest.MonkeyPatch.context() as patched, pytest.raises(RecipeError, match="normalised window by window"):
        patched.setattr(corpus[1], "normalization", "zscore")
        patched.setattr(corpus[1], "normalization_scope", "window")
        load()
    task = load(datasets.DatasetDict(corpus[0]) | {
        "train": corpus[0]["train"].map(lambda row: {"text": "a" * 200} if row["recording"] == "train3" else {})
    })  # fmt: skip
    assert task.texts["train"]["utterances_too_short_for_their_text"] == 1


def test_frames_that_a_text_needs():
    assert [frames_needed(text) for text in ("", "abc", "aab", "a  a")] == [0, 3, 4, 5]


def test_the_central_sentence_has_the_fewest_errors():
    assert central_sentence(["a b c", "a b d", "x y"]) in ("a b c", "a b d")
    assert central_sentence(["k l m", "a b c d", "k l n", "k l"]) == "k l"


def test_alignment_is_the_best_of_all():
    """Against every way to share out the frames."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, text = rng.normal(size=(7, 4)), rng.integers(4, size=3).tolist()
        ways = [np.repeat(text, [i, j - i, 7 - j]) for i in range(1, 6) for j in range(i + 1, 7)]
        best = max(ways, key=lambda way: scores[np.arange(7), way].sum())
        found = align(scores, text)
        assert scores[np.arange(7), found].sum() == pytest.approx(scores[np.arange(7), best].sum())
        assert any(found.tolist() == way.tolist() for way in ways)
