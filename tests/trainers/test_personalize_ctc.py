"""Personal typing models: a run per user from one generic model, what is compared, and what is said when that fails."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

import trainers.finetune as finetune
from dataset_builders import synthetic
from dataset_builders.base import load_corpus
from dataset_builders.simulation.typing import simulate_typing
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from trainers import personalize_ctc
from trainers.arguments import DataArguments
from trainers.errors import CheckpointError, DivergenceError, RecipeError
from trainers.parsing import parse_recipe
from trainers.personal import personalize_checkpoint
from trainers.personalize_ctc import load_users
from trainers.personalize_ctc_arguments import personal_learning_rate
from trainers.personalize_ctc_report import gain_sentence, over_seeds, plot_users, summarize, user_table
from trainers.report import Column

TINY = {
    "conv_dim": [16, 16, 16], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "hidden_dropout": 0.0,
    "activation_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "final_dropout": 0.0,
}  # fmt: skip
CORPUS = {
    "preset": "typing", "protocol": "unseen_sessions", "num_subjects": 3, "num_sessions": 3, "num_repetitions": 1,
    "duration": 5, "stride": 2000, "window_length": 2000,
}  # fmt: skip
GESTURES = {"preset": "gestures", "hold": 1.0, "window_length": 100}
CER = Column("cer", "CER (%)")


@pytest.fixture(scope="module")
def generic(tmp_path_factory):
    """A checkpoint that has learned nothing, and was trained on nobody."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("generic")
    SEMGTransformerForCTC(SEMGTransformerConfig(**TINY)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture
def personalise(generic, cache, monkeypatch, tmp_path):
    """A function that runs a tiny recipe: its fields as keywords. Plots of the users' runs are left out."""
    monkeypatch.setattr(personalize_ctc.CTCTask, "write_plots", classmethod(lambda *args: None))

    def run(**fields):
        recipe = {
            "task": "ctc_personalization",
            "dataset": "synthetic",
            "dataset_config": CORPUS,
            "cache_dir": str(cache),
            "output_dir": str(tmp_path / "run"),
            "model_name_or_path": str(generic),
            "users": ["01", "02"],
            "context": [200, 40],
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "max_grad_norm": 1.0,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
        } | fields
        return personalize_ctc.run(*parse_recipe(recipe))

    return run


@pytest.fixture
def trained(monkeypatch):
    """The folders of the runs that train, as they do."""
    folders = []
    run_seed = finetune.run_seed

    def watch(seed, task, model, arguments, augmentation, folder):
        if not (folder / "result.json").is_file():
            folders.append("/".join(folder.parts[-3:]))
        return run_seed(seed, task, model, arguments, augmentation, folder)

    monkeypatch.setattr(finetune, "run_seed", watch)
    return folders


def edits(found, true):
    """Levenshtein distance, by the book."""
    row = list(range(len(true) + 1))
    for i, a in enumerate(found, 1):
        row, last = [i], row
        for j, b in enumerate(true, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
    return row[-1]


def cer_of(folder, cache, user, split):
    """CER of a checkpoint on the whole sessions of a user, from the stored rows and the model alone."""
    data, _ = load_corpus("synthetic", cache_dir=str(cache), **CORPUS, subjects=[user])
    model = SEMGTransformerForCTC.from_pretrained(folder).eval()
    wrong = length = 0
    stored = list(data[split].with_format("numpy"))
    for name in dict.fromkeys(row["recording"] for row in stored):
        rows = [row for row in stored if row["recording"] == name]
        signal = np.concatenate([row["input_values"] * np.float32(row["scale"]) for row in rows], axis=1)
        with torch.no_grad():
            best = model(torch.from_numpy(signal).float()[None]).logits[0].argmax(-1).tolist()
        found = [a for a, b in zip(best, [None, *best], strict=False) if a != b and a != 98]
        true = [event["name"] for row in rows for event in row["events"]]
        wrong, length = wrong + edits(found, true), length + len(true)
    return 100 * wrong / length


def test_every_user_gets_a_model_and_only_what_is_missing_is_trained(personalise, trained, generic, cache, tmp_path):
    results = personalise(from_scratch=True)
    assert trained == ["users/01/seed-0", "from_scratch/01/seed-0", "users/02/seed-0", "from_scratch/02/seed-0"]
    cer = {(row["user"], row["model"]): row["cer"] for row in results["rows"]}
    folder = tmp_path / "run"
    for user in ("01", "02"):
        assert cer[user, "generic"] == pytest.approx(cer_of(generic, cache, user, "test"))
        assert cer[user, "personalised"] == pytest.approx(cer_of(folder / "users" / user, cache, user, "test"))
        assert cer[user, "from scratch"] == pytest.approx(cer_of(folder / "from_scratch" / user, cache, user, "test"))
        assert cer[user, "personalised"] < cer[user, "generic"]
    assert results["scores"]["personalised"]["cer"]["users"]["mean"] == pytest.approx(
        (cer["01", "personalised"] + cer["02", "personalised"]) / 2
    )
    rates = {row["model"]: row["learning_rate"] for row in results["rows"]}
    assert rates == {"generic": None, "personalised": 1e-2, "from scratch": 1e-3}
    config = SEMGTransformerConfig.from_pretrained(folder / "from_scratch/01")
    assert all(
        list(getattr(config, k)) == v if isinstance(v, list) else getattr(config, k) == v for k, v in TINY.items()
    )
    assert results["users"]["01"]["sessions"] == {"train": 1, "validation": 1, "test": 1}
    assert json.loads((folder / "results.json").read_text())["rows"] == results["rows"]
    card = (folder / "README.md").read_text()
    assert "| 02 |" in card and "is not recorded" in card and "From scratch" in card
    assert "Before personalization" in (folder / "users/01/README.md").read_text()
    assert (folder / "cer.png").stat().st_size > 5000

    trained.clear()
    (folder / "results.json").unlink()
    (folder / "users/01/generic.json").unlink()
    shutil.rmtree(folder / "users/02")
    again = personalise(users=["01", "02", "03"])  # users may be added, what is beside the personal models left out
    assert trained == ["users/02/seed-0", "users/03/seed-0"]
    assert {(r["user"], r["model"]): r["cer"] for r in again["rows"] if r["user"] != "03"} == {
        key: value for key, value in cer.items() if key[1] != "from scratch"
    }
    assert len(again["rows"]) == 3 * 2


def test_the_generic_model_is_scored_as_it_is(personalise, generic, cache):
    """Whatever the recipe changes in the personal ones."""
    results = personalise(
        users=["01"], model_config={"input_norm": "running", "attention_window": 3}, num_train_epochs=1
    )
    (row,) = [row for row in results["rows"] if row["model"] == "generic"]
    assert row["cer"] == pytest.approx(cer_of(generic, cache, "01", "test"))


def test_a_user_whose_training_fails_does_not_lose_the_others(personalise, trained, monkeypatch):
    run_seed = finetune.run_seed

    def diverge(seed, task, model, arguments, augmentation, folder):
        if "02" in folder.parts:
            raise DivergenceError("step 3: the loss is nan")
        return run_seed(seed, task, model, arguments, augmentation, folder)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "run_seed", diverge)
        results = personalise(num_train_epochs=1)
        assert results["failed"] == {"02": "step 3: the loss is nan"}
        assert list(results["users"]) == ["01"] and {row["user"] for row in results["rows"]} == {"01"}
        assert "Failed: 02: step 3" in results["summary"]
        with pytest.raises(RecipeError, match="nobody could be personalised to: 02: step 3"):
            personalise(num_train_epochs=1, users=["02"])
    trained.clear()
    assert personalise(num_train_epochs=1)["failed"] == {}
    assert trained == ["users/02/seed-0"]


def test_users_who_cannot_be_personalised_to_are_named_before_anything_is_trained(
    personalise, trained, monkeypatch, tmp_path
):
    def silent(block):
        signal = simulate_typing(block)
        if block.subject == 2 and block.session == 3:
            empty = type(signal.events)((), np.empty(0), np.empty(0))
            signal = synthetic.dataclasses.replace(signal, events=empty)
        return signal

    monkeypatch.setitem(synthetic._SIMULATED, "typing", silent)
    fields = {"cache_dir": str(tmp_path / "cache"), "users": ["01", "02", "77"]}
    with pytest.raises(RecipeError, match="2 of 3 users cannot .*; 77: ") as error:
        personalise(**fields)
    assert "02: there are no keystrokes in the sessions for test" in str(error.value)
    assert not trained
    blocks = CORPUS | {"protocol": "within_subject", "num_repetitions": 3}
    with pytest.raises(RecipeError, match="01: session 1 is in train and in validation"):
        personalise(**fields | {"users": ["01"], "dataset_config": blocks})


def write_session(folder, name, keys):
    """A session of emg2qwerty: two seconds, a key every tenth of a second."""
    series = np.zeros(4000, [("emg_left", "<f4", (16,)), ("emg_right", "<f4", (16,)), ("time", "<f8")])
    series["emg_left"], series["emg_right"] = np.random.default_rng(0).normal(size=(2, 4000, 16))
    series["time"] = 1_600_000_000 + np.arange(4000) / 2000
    strokes = [
        {"key": key, "start": 1_600_000_000.1 + 0.1 * i, "end": 1_600_000_000.15 + 0.1 * i}
        for i, key in enumerate(keys)
    ]
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        group = file.create_group("emg2qwerty")
        group["timeseries"] = series
        group.attrs.update(
            session_name=name, user="7", condition="on_keyboard", duration_mins=1 / 30, keystrokes=json.dumps(strokes)
        )


def test_users_of_emg2qwerty_are_those_of_its_split_files(tmp_path):
    names = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    for name in "abcd":
        write_session(tmp_path, name, ["h", "i", "Key.space"][: 1 + "abcd".index(name)])
    listed = {split: [{"user": "7", "session": name} for name in found] for split, found in names.items()}
    (tmp_path / "anna.yaml").write_text(json.dumps({"dataset": listed}))
    data = DataArguments(dataset="emg2qwerty", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    (anna,) = load_users(data, ["anna"])
    assert anna.data.dataset_config == {"user": "anna"} and anna.subjects == ("7",)
    assert anna.sessions == {"train": 2, "validation": 1, "test": 1}
    assert anna.keystrokes == {"train": 1 + 2, "validation": 3, "test": 3}
    with pytest.raises(RecipeError, match="1 of 2 users cannot .*: bob: .*Copy bob.yaml"):
        load_users(data, ["anna", "bob"])


def test_a_generic_model_that_knows_the_user_is_refused(personalise, generic, tmp_path):
    copy = tmp_path / "known"
    shutil.copytree(generic, copy)
    record = {"dataset": "synthetic", "subject_names": {"train": ["02", "05"], "validation": ["01"]}}
    (copy / "results.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="was trained on subjects 02"):
        personalise(model_name_or_path=str(copy))
    results = personalise(model_name_or_path=str(copy), users=["01"], num_train_epochs=1)
    assert "selected on 01" in results["protocol"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_name_or_path": None}, "starts from a generic model"),
        ({"model_name_or_path": "nowhere/at/all"}, "no such checkpoint"),
        ({"users": []}, "users is empty"),
        ({"dataset": "some/folder", "dataset_config": {}}, "are selected by a builder"),
        ({"dataset_config": CORPUS | {"subjects": ["01"]}}, "subjects is what `users` decides"),
        ({"dataset": "emg2qwerty", "dataset_config": {"user": "generic"}}, "user is what `users` decides"),
        (
            {"dataset_config": CORPUS | GESTURES},
            "01: dataset synthetic has no events",
        ),
        ({"metric_for_best_model": "f1"}, "metric_for_best_model"),
    ],
)
def test_recipes_that_cannot_be_meant(personalise, fields, message):
    with pytest.raises((RecipeError, CheckpointError), match=message):
        personalise(**fields)


def test_another_run_is_not_continued_and_is_replaced_as_a_whole(personalise, trained, tmp_path):
    personalise(users=["01"], num_train_epochs=1)
    (tmp_path / "run/results.json").unlink()  # as if killed before the end
    with pytest.raises(RecipeError, match="holds another run"):
        personalise(users=["01"], num_train_epochs=1, weight_decay=0.5)
    trained.clear()
    personalise(users=["01"], num_train_epochs=1, weight_decay=0.5, overwrite=True)
    assert trained == ["users/01/seed-0"]


def test_the_command_for_classifiers_names_the_one_for_typing(generic, tmp_path):
    with pytest.raises(CheckpointError, match="is a typing model, .*tinymyo train emg2qwerty_personal_tiny"):
        personalize_checkpoint(str(generic), tmp_path, tmp_path / "out")


def test_rates_of_the_paper():
    assert [personal_learning_rate(width) for width in (128, 256, 1024)] == [3e-4, 3e-4, 1e-4]


def test_tables_by_hand(tmp_path):
    def row(user, model, seed, cer):
        return {"user": user, "model": model, "seed": seed, "learning_rate": 1e-3, "cer": cer}

    rows = [
        row("a", "generic", None, 50.0), row("b", "generic", None, 30.0),
        row("a", "personalised", 0, 10.0), row("a", "personalised", 1, 14.0),
        row("b", "personalised", 0, 30.0), row("b", "personalised", 1, 34.0),
        row("a", "from scratch", 0, 80.0),
    ]  # fmt: skip
    table = user_table(rows, CER)
    assert "| a | 50.00 | 12.00 ± 2.83 | 80.00 |" in table and "| b | 30.00 | 32.00 ± 2.83 | – |" in table
    assert "| **Mean** | 40.00 ± 14.14 | 22.00 ± 14.14 | 80.00 |" in table
    assert over_seeds(rows, "personalised", "cer") == pytest.approx({"mean": 22.0, "std": np.sqrt(8.0), "count": 2})
    assert summarize(rows, [CER])["generic"]["cer"]["users"]["mean"] == 40.0
    assert gain_sentence(rows) == (
        "Personalization lowers the CER of 1 of 2 users, on average by 18.00 points (45 % of the generic model's); "
        "least for b: -2.00."
    )
    plot_users(rows, tmp_path / "plot.png", CER)
    assert (tmp_path / "plot.png").stat().st_size > 5000
