"""Typing through the engine: what a run learns, scores, saves and refuses."""

import json
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from test_finetune import Killed, kill_at
from tiny_typing import KEYS, SECONDS, changed, tiny_typing, typed
from transformers import AutoModelForCTC, EvalPrediction

import trainers.evaluate as evaluate
import trainers.finetune as finetune
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.arguments import ModelArguments
from trainers.ctc import CTCTask
from trainers.ctc_arguments import paper_learning_rate
from trainers.ctc_models import store_statistics
from trainers.ctc_trainer import LikeLengths, best_labels, collapse
from trainers.errors import CheckpointError, RecipeError
from trainers.parsing import parse_recipe

TINY = {
    "conv_dim": [16, 16, 16], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "hidden_dropout": 0.0,
    "activation_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
}  # fmt: skip
CONTEXT = [400, 100]
LEARNS = {
    "model_config": TINY | {"do_stable_layer_norm": True}, "loss_span": "window", "alignment_weight": 1.0,
    "num_train_epochs": 16, "per_device_train_batch_size": 3, "max_grad_norm": 1.0, "weight_decay": 0.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return tiny_typing(tmp_path_factory.mktemp("typing"))


@pytest.fixture
def load(corpus, recipe_reader):
    return recipe_reader(
        corpus,
        task="ctc",
        preset="semg-transformer-tiny",
        model_config=TINY,
        context=CONTEXT,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        learning_rate=1e-2,
        augmentations={},
    )


@pytest.fixture
def load_task(load):
    def make(data=None, **fields):
        _, of_data, arguments = load(data, **fields)
        return CTCTask.load(of_data, arguments)

    return make


def keystrokes(split):
    return sum(len(typed(f"{split}{i}", seconds)[0]) for i, seconds in enumerate(SECONDS[split]))


def test_windows_have_the_text_typed_in_them_and_nothing_of_their_context(load_task):
    task = load_task(jitter=False, loss_span="window")
    windows = task.splits["train"]
    # 4.5, 3.1 and 2 s in windows of 1 s with 0.2 s before and 0.05 s after, as far as there are samples
    assert windows.lengths == [2100, 2500, 2500, 2500, 2100, 2500, 2500, 2100, 2400]
    for index, (session, first) in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]):
        ids, starts = typed(f"train{session}", SECONDS["train"][session])
        item = windows[index]
        inside = (starts >= 2000 * first) & (starts <= 2000 * first + 1999)
        assert item["labels"].tolist() == ids[inside].tolist()
        before = 400 if first else 0
        assert item["labelled_span"].tolist() == [before, before + 2000]
        assert item["input_values"].shape == (8, windows.lengths[index])
    batch = task.collate([windows[0], windows[1]])
    assert batch["attention_mask"].sum(1).tolist() == [2100, 2500]
    assert batch["labels"].shape == (2, max(len(windows[i]["labels"]) for i in (0, 1)))
    assert "labelled_span" not in load_task().splits["train"][0]  # the loss then covers all frames


def test_only_training_windows_move(load_task):
    task = load_task()
    found = set()
    for epoch in range(3):
        task.splits["train"].set_epoch(epoch)
        found.add(tuple(task.splits["train"][0]["labels"].tolist()))
    assert len(found) > 1
    validation = task.splits["validation"]
    ids, starts = typed("validation0", 2.6)
    assert validation[1]["labels"].tolist() == ids[(starts >= 2000) & (starts < 4000)].tolist()


def test_how_much_text_there_is_is_counted(load_task, corpus):
    task = load_task()
    assert task.texts["train"]["keystrokes"] == keystrokes("train")
    # of 4.5, 3.1 and 2 s, the whole seconds are windows
    inside = sum((typed(f"train{i}", s)[1] < 2000 * int(s)).sum() for i, s in enumerate(SECONDS["train"]))
    assert task.texts["train"]["keystrokes_in_windows"] == inside
    assert task.texts["validation"]["windows_without_keystrokes"] == 0
    resting = load_task(
        changed(corpus[0], "validation", lambda row: {"events": row["events"][: 99 * (not row["start"])]})
    )
    assert resting.texts["validation"]["windows_without_keystrokes"] > 0


def test_a_recording_without_keystrokes_is_named(load_task, corpus):
    """It would be learned as rest, although somebody may have typed."""
    for split in ("train", "test"):
        kept = f"{split}0"
        silent = changed(
            corpus[0], split, lambda row, kept=kept: {"events": row["events"] * (row["recording"] == kept)}
        )
        with pytest.raises(
            RecipeError, match=rf"{split} split: {len(SECONDS[split]) - 1} recordings .*\({split}1"
        ) as error:
            load_task(silent)
        assert kept not in str(error.value)


def test_texts_that_do_not_fit_their_frames_are_counted(load_task, corpus):
    def crowd(count, only=None):
        def change(row):
            places = [float(row["start"] + i) for i in range(min(count, len(row["input_values"][0])))]
            first = [{"name": 0, "start": place, "end": place} for place in places]
            return {"events": first if only in (None, (row["recording"], row["start"])) else row["events"]}

        return changed(corpus[0], "train", change)

    task = load_task(crowd(200, ("train2", 0)))
    task.build_model(parse_model())
    # 200 equal characters need 399 frames; the first window of train2 has (2100 - 41) // 20 + 1 = 103
    assert task.texts["train"]["windows_with_too_long_texts"] == 1
    with pytest.raises(RecipeError, match="no training window has as many frames as characters"):
        load_task(crowd(500)).build_model(parse_model())


def parse_model(**fields):
    return ModelArguments(**{"preset": "semg-transformer-tiny", "model_config": TINY} | fields)


def test_whole_sessions_are_scored(load_task, monkeypatch):
    task = load_task()
    truth = {f"test{i}": typed(f"test{i}", seconds)[0].tolist() for i, seconds in enumerate(SECONDS["test"])}
    said = iter([truth["test0"][1:], [*truth["test1"], 0, 1]])  # one deletion; two insertions

    def labels(model, signal, chunk):
        assert signal.shape[0] == 8 and chunk == 20_000
        ids = next(said)
        return np.stack([np.array(ids), np.full(len(ids), 4)], axis=1).ravel()  # a blank after each

    monkeypatch.setattr("trainers.ctc.session_labels", labels)
    scores = task.score(SimpleNamespace(model=torch.nn.Linear(1, 1)), "test")
    total = sum(map(len, truth.values()))
    assert (scores["characters"], scores["deletions"], scores["insertions"]) == (total, 1, 2)
    assert scores["cer"] == pytest.approx(100 * 3 / total)
    rows = {row["subject"]: row for row in scores["per_subject"]}
    assert rows["s0"]["cer"] == pytest.approx(100 / len(truth["test0"]))
    assert rows["s1"]["ier"] == pytest.approx(200 / len(truth["test1"]))
    assert scores["example"]["typed"] == "".join(KEYS[i] for i in truth["test0"])
    assert scores["example"]["decoded"] == scores["example"]["typed"][1:]
    json.dumps(scores, allow_nan=False)


def test_frames_outside_the_window_and_the_recording_say_nothing(load_task):
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**TINY, num_channels=8, vocab_size=5, pad_token_id=4))
    mask = torch.ones(2, 2500, dtype=torch.long)
    mask[1, 2100:] = 0
    logits = torch.zeros(2, 123, 5)
    logits[..., 1] = 1.0
    found = best_labels(model, logits, {"attention_mask": mask})
    assert (found == 1).sum(1).tolist() == [123, 103]
    span = torch.tensor([[400, 2400], [0, 2000]])
    found = best_labels(model, logits, {"attention_mask": mask, "labelled_span": span})
    # frame i sees samples 20 i to 20 i + 40
    inside = [[i for i in range(123) if 20 * i >= a and 20 * i + 40 < b] for a, b in span.tolist()]
    assert [row.nonzero().flatten().tolist() for row in found == 1] == inside


def test_frames_are_collapsed_to_text():
    assert collapse(np.array([4, 1, 1, 4, 1, 2, 2, 0, 4, 4, -100]), 4) == [1, 1, 2, 0]
    assert collapse(np.array([4, 4]), 4) == []
    assert collapse(np.array([3]), 4) == [3]


def test_scores_during_training_are_those_of_windows(load_task):
    task = load_task()
    labels = np.array([[0, 1, 2, -100], [3, -100, -100, -100], [-100] * 4])
    frames = np.array([[4, 0, 0, 1, 4, 2, -100], [3, 4, 3, 4, 4, 4, 4], [4, 4, 1, 4, 4, -100, -100]])
    scores = task.headline(EvalPrediction(predictions=frames, label_ids=labels))
    # right, one inserted, one inserted where nothing was typed; 4 characters
    assert scores == {"cer": 50.0, "ier": 50.0, "der": 0.0, "ser": 0.0}


def test_a_run_from_end_to_end(load, tmp_path, corpus):
    results = finetune.run(*load(**LEARNS, baselines=True))
    folder = tmp_path / "run"
    assert (results["task"], results["family"]) == ("emg-to-text", "sEMG transformer")
    assert results["recordings"] == {"train": 3, "validation": 2, "test": 2}
    assert results["runs"][0]["test"]["characters"] == keystrokes("test")
    assert results["test"]["cer"]["mean"] < 20
    history = results["runs"][0]["history"]
    best = min(row["cer"] for row in history)
    assert next(row for row in history if row["best"])["cer"] == best  # lower is better
    baseline = results["baselines"]["LDA, frame by frame"]
    assert baseline["cer"] < 60
    for name in ("per_user.png", "learning_curves.png"):
        assert (folder / name).stat().st_size > 5000
    card = (folder / "README.md").read_text()
    assert "# sEMG transformer on tiny" in card and "| s1 |" in card and "LDA, frame by frame" in card
    assert "| `alignment_weight` | `1.0` |" in card and "CER" in results["summary"]

    # what was saved writes what was scored
    model = AutoModelForCTC.from_pretrained(folder).eval()
    tokenizer = EmgCharacterTokenizer.from_pretrained(folder)
    task = CTCTask.load(*load()[1:])
    session = next(task.sessions("test"))
    with torch.no_grad():
        ids = model(session.signal[None]).logits[0].argmax(-1).tolist()
    assert tokenizer.decode(ids, group_tokens=True) == results["runs"][0]["test"]["example"]["decoded"]

    scored = evaluate.evaluate_checkpoint(str(folder), "tiny", tmp_path / "evaluation", baselines=False)
    assert scored["runs"][0]["test"]["per_session"] == results["runs"][0]["test"]["per_session"]
    assert "By user (split test" in (tmp_path / "evaluation/report.md").read_text()
    check_another_corpus_is_refused(folder, corpus, load, tmp_path)


def check_another_corpus_is_refused(folder, corpus, load, tmp_path):
    names = datasets.ClassLabel(names=["a", "c", " ", "⌫"])
    features = corpus[0]["test"].features.copy()
    features["events"] = [{"name": names, **dict.fromkeys(("start", "end"), datasets.Value("float64"))}]
    other = datasets.DatasetDict({name: split.cast(datasets.Features(features)) for name, split in corpus[0].items()})
    load(other)
    with pytest.raises(CheckpointError, match="1 differ.*'c' and 'b'"):
        evaluate.evaluate_checkpoint(str(folder), "tiny", tmp_path / "other", baselines=False)
    with pytest.raises(CheckpointError, match="1 differ"):
        finetune.run(*load(other, model_name_or_path=str(folder), model_config={}, output_dir=str(tmp_path / "b")))


def test_a_run_goes_on_from_a_checkpoint_and_its_statistics_stay(load_task, tmp_path):
    task = load_task()
    model = task.build_model(parse_model(model_config=TINY | {"input_norm": "frozen"}))
    norm = model.semg_transformer.input_norm
    assert norm.running_var.max() > 0 and norm.running_var.min() != 1.0  # of the training windows
    model.save_pretrained(tmp_path)
    task.save_processors(tmp_path)
    again = task.build_model(parse_model(model_name_or_path=str(tmp_path), model_config={"hidden_dropout": 0.3}))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    assert again.config.hidden_dropout == 0.3 and again.config.input_norm == "frozen"
    for fields, error, message in (
        ({"model_config": {"hidden_size": 64}}, CheckpointError, "another shape: hidden_size"),
        ({"model_config": {"depth": 3}}, RecipeError, "SEMGTransformerConfig has no field 'depth'"),
        ({"model_config": {"num_channels": 16}}, RecipeError, "num_channels is 8 by the data"),
    ):
        with pytest.raises(error, match=message):
            task.build_model(parse_model(model_name_or_path=str(tmp_path), **fields))


def test_a_run_of_a_seed_is_the_same_whatever_was_trained_before(load, load_task, tmp_path, monkeypatch):
    monkeypatch.setattr(CTCTask, "write_plots", classmethod(lambda *args: None))
    fields = {"model_config": TINY | {"input_norm": "frozen"}, "num_train_epochs": 2}
    one = finetune.run(*load(**fields, seeds=[1], output_dir=str(tmp_path / "one")))
    both = finetune.run(*load(**fields, seeds=[0, 1], output_dir=str(tmp_path / "both")))
    assert both["runs"][1]["history"] == one["runs"][0]["history"]
    statistics = [
        AutoModelForCTC.from_pretrained(tmp_path / folder).semg_transformer.input_norm.running_var
        for folder in ("one/seed-1", "both/seed-1")
    ]
    assert torch.equal(*statistics)
    task = load_task()
    places = []
    for seed in (0, 1, 0):
        task.reseed(seed)
        places.append(task.splits["train"][0]["labels"].tolist())
    assert places[0] == places[2] != places[1]


def test_a_checkpoint_without_statistics_gets_them(load_task, tmp_path):
    task = load_task()
    task.build_model(parse_model()).save_pretrained(tmp_path)  # trained with those of each window
    fields = {"model_name_or_path": str(tmp_path), "model_config": {"input_norm": "frozen"}}
    # its characters are those of the corpus, which a checkpoint without a tokenizer cannot say
    with pytest.raises(CheckpointError, match="outputs"):
        task.build_model(parse_model(**fields))
    task.save_processors(tmp_path)
    norm = task.build_model(parse_model(**fields)).semg_transformer.input_norm
    assert norm.running_var.min() != 1.0 and norm.running_mean.abs().max() > 0


def test_adapters_are_trained_scored_and_merged(load, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr(CTCTask, "write_plots", classmethod(lambda *args: None))  # they take longer than the training
    results = finetune.run(*load(lora=True, lora_r=2))
    assert "lora_target_modules" in results["hyperparameters"]
    assert 0 < results["parameters"]["trainable"] < results["parameters"]["total"] / 4
    model = AutoModelForCTC.from_pretrained(tmp_path / "run").eval()
    task = CTCTask.load(*load()[1:])
    session = next(task.sessions("test"))
    with torch.no_grad():
        ids = collapse(model(session.signal[None]).logits[0].argmax(-1).numpy(), 4)
    assert task.tokenizer.decode(ids)[:240] == results["runs"][0]["test"]["example"]["decoded"]
    with pytest.raises(RecipeError, match="lora_target_modules"):
        finetune.run(*load(lora=True, lora_target_modules=["qkv2"], output_dir=str(tmp_path / "other")))


def test_batches_hold_windows_of_like_length():
    lengths = [100, 300] * 32
    sampler = LikeLengths(4, lengths, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert epochs[0] == epochs[2] != epochs[1]
    for order in epochs:
        assert sorted(order) == list(range(64))
        batches = [{lengths[i] for i in order[start : start + 4]} for start in range(0, 64, 4)]
        assert sum(len(kinds) == 1 for kinds in batches) >= 12  # all but those at the seams of 4 sorted stretches
    assert list(LikeLengths(4, lengths, seed=4)) != epochs[0]


def test_an_interrupted_run_ends_as_a_whole_one(load, tmp_path, monkeypatch):
    monkeypatch.setattr(CTCTask, "write_plots", classmethod(lambda *args: None))
    fields = {"num_train_epochs": 2, "per_device_train_batch_size": 3, "augmentations": {"gaussian_noise": {}}}
    whole = finetune.run(*load(**fields, output_dir=str(tmp_path / "whole")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step=4)  # of 3 per epoch
        finetune.run(*load(**fields))
    resumed = finetune.run(*load(**fields))
    assert resumed["runs"][0]["history"] == whole["runs"][0]["history"]
    assert resumed["test"] == whole["test"]


def test_statistics_of_batches_are_those_of_all_frames():
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**TINY, num_channels=3, input_norm="frozen"))
    x = torch.randn(4, 3, 415, generator=torch.Generator().manual_seed(0)) * 3 + 1
    batches = [{"input_values": part, "attention_mask": torch.ones(len(part), 415)} for part in (x[:1], x[1:])]
    store_statistics(model, batches)
    with torch.no_grad():
        states = model.semg_transformer.feature_extractor.conv_layers[0].conv(x).double()
    norm = model.semg_transformer.input_norm
    torch.testing.assert_close(norm.running_mean.double(), states.mean((0, 2)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), states.var((0, 2), correction=0), rtol=1e-5, atol=1e-6)


def test_learning_rates_of_the_paper():
    published = {(128, 10): 1e-3, (256, 8): 1e-3, (256, 10): 3e-4, (512, 2): 1e-3, (512, 4): 3e-4, (1024, 2): 1e-3}
    published |= {(1024, layers): 3e-4 for layers in (4, 6, 8, 10)}
    assert {size: paper_learning_rate(*size) for size in published} == published
    sizes = {(p["hidden_size"], p["num_hidden_layers"]) for p in SEMG_TRANSFORMER_PRESETS.values()}
    assert len(sizes) == 20 and all(paper_learning_rate(*size) in (1e-3, 3e-4) for size in sizes)


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [([], 1e-3), (["--preset", "semg-transformer-512x6"], 3e-4), (["--learning_rate", "0.002"], 2e-3)],
)
def test_recipes_of_the_paper(overrides, rate):
    model, data, arguments = parse_recipe("emg2qwerty_tiny", ["--report_to", "none", *overrides])
    CTCTask.complete(model, arguments)
    assert arguments.learning_rate == rate
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 640
    assert (arguments.max_grad_norm, arguments.weight_decay, arguments.warmup_steps) == (0.1, 0.2, 0.05)
    assert arguments.lr_scheduler_type == "cosine" and not arguments.greater_is_better
    assert arguments.context == [1800, 200] and data.dataset == "emg2qwerty"


def test_the_larger_recipes_have_the_same_batch():
    for name, preset in (("small", "semg-transformer-small"), ("large", "semg-transformer-large")):
        model, _, arguments = parse_recipe(f"emg2qwerty_{name}", ["--report_to", "none"])
        assert model.preset == preset
        assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 640


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "tinymyo-base", "model_config": {}}, "preset 'tinymyo-base' is no sEMG transformer"),
        ({"augmentations": {"time_shift": {}}}, "time_shift moves windows in time"),
        ({"context": [100]}, r"context=\[100\]: give the samples before and after"),
        ({"session_chunk": 0}, "session_chunk=0"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"train_sampling_strategy": "batch_rebalance"}, "train_sampling_strategy=batch_rebalance"),
        ({"model_config": {"hidden_sise": 3}}, "no field 'hidden_sise'; did you mean hidden_size"),
        ({"metric_for_best_model": "f1"}, "metric_for_best_model=f1: choose from loss, cer"),
    ],
)
def test_refused_fields(load, fields, message):
    with pytest.raises(RecipeError, match=message):
        finetune.run(*load(**fields))


def test_corpora_that_cannot_be_used(load_task, corpus, tmp_path):
    data = corpus[0]
    with pytest.raises(RecipeError, match="no events"):
        load_task(datasets.DatasetDict({name: split.remove_columns("events") for name, split in data.items()}))
    with pytest.raises(RecipeError, match="no window of its validation split has a keystroke"):
        load_task(changed(data, "validation", lambda row: {"events": []}))
    with pytest.raises(RecipeError, match="train0: the event at sample 1e.06 lies outside it"):
        load_task(changed(data, "train", lambda row: {"events": [dict(e, start=1e6) for e in row["events"]]}))
    filtered = type(corpus[1])(**corpus[1].to_dict() | {"band_pass": [20.0, 90.0]})
    with pytest.raises(RecipeError, match="dataset tiny: the corpus was prepared with band_pass"):
        CTCTask.from_splits(data, filtered, SimpleNamespace(dataset="tiny", train_fraction=1.0, train_fraction_seed=0))


def test_a_share_of_the_windows(load_task):
    task = load_task(train_fraction=0.5)
    windows = task.splits["train"]
    assert len(windows) == len(windows.lengths) == len(task.subjects["train"]) == 4
    whole = load_task().splits["train"]
    assert windows.lengths == [whole.lengths[i] for i in windows.indices]
