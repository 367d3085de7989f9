"""Distillation of models that write text: frame by frame, padding left out, and only where frames mean the same."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMGTransformerConfig
from tinymyo_hf.semg_transformer.feature_extraction_semg_transformer import SEMGTransformerFeatureExtractor
from tinymyo_hf.semg_transformer.modeling_semg_transformer import SEMGTransformerForCTC
from tinymyo_hf.tokenization import EmgCharacterTokenizer
from trainers.ctc import CTCTask
from trainers.distill import DistilledCTC, run
from trainers.errors import CheckpointError, RecipeError
from trainers.finetune import make_trainer
from trainers.parsing import parse_recipe

SMALL = {
    "conv_dim": [16, 16, 16], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
CORPUS = {
    "preset": "typing", "protocol": "unseen_sessions", "num_subjects": 1, "num_sessions": 3, "num_repetitions": 1,
    "duration": 6, "stride": 2000, "window_length": 2000,
}  # fmt: skip
CONTEXT = [200, 40]


@pytest.fixture
def teacher(tmp_path):
    """A folder as training writes it: a model with opinions, its preprocessing and its characters."""
    torch.manual_seed(0)
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**SMALL))
    model.lm_head.weight.data.normal_(std=1.0)
    for part in (model, SEMGTransformerFeatureExtractor(), EmgCharacterTokenizer()):
        part.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture
def recipe(teacher, cache, tmp_path, monkeypatch):
    """A function that gives the arguments of a tiny distillation: fields of its recipe as keywords."""
    monkeypatch.setattr(CTCTask, "write_plots", classmethod(lambda *args: None))  # they take longer

    def read(**fields):
        return parse_recipe(
            {
                "task": "distillation",
                "student_task": "ctc",
                "teacher_name_or_path": str(teacher),
                "dataset": "synthetic",
                "dataset_config": CORPUS,
                "cache_dir": str(cache),
                "output_dir": str(tmp_path / "student"),
                "preset": "semg-transformer-tiny",
                "model_config": SMALL | {"hidden_size": 16, "input_norm": "frozen", "positional_conv_causal": True},
                "context": CONTEXT,
                "num_train_epochs": 1,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 1,
                "report_to": "none",
                "baselines": False,
                "disable_tqdm": True,
            }
            | fields
        )

    return read


def test_a_streamable_student_of_a_teacher_that_looks_ahead(recipe, teacher, tmp_path):
    results = run(*recipe())
    scores = results["baselines"]["teacher"]
    assert scores["cer"] == pytest.approx(scores["ser"] + scores["der"] + scores["ier"])
    assert f"| teacher | {scores['cer']:.2f} |" in results["summary"]
    assert results["hyperparameters"]["weight_decay"] == 0.1 and results["hyperparameters"]["learning_rate"] == 1e-3
    student = SEMGTransformerForCTC.from_pretrained(tmp_path / "student")
    assert student.config.input_norm == "frozen" and student.config.hidden_size == 16
    card = (tmp_path / "student/README.md").read_text()
    assert f"Distilled from the teacher `{teacher}`" in card and "| `temperature` | `2.0` |" in card


def test_frames_of_padding_teach_nothing_whatever_they_hold(recipe, teacher):
    _, data, arguments = recipe(augmentations={}, jitter=False)
    task = DistilledCTC.load(data, arguments)
    guide = task.guide(arguments)
    windows = task.splits["train"]
    first, last = windows[0], windows[len(windows) - 1]  # the first has no context before it
    batch = task.collate([first, last])
    lengths = [item["input_values"].shape[1] for item in (first, last)]
    assert lengths[0] != lengths[1]

    torch.manual_seed(1)
    frames = (max(lengths) - 41) // 20 + 1
    logits = torch.randn(2, frames, 99)
    loss = guide(torch.tensor(0.0), {"logits": logits}, batch, 1.0)
    model = SEMGTransformerForCTC.from_pretrained(teacher).eval()
    entropies = []
    for i, item in enumerate((first, last)):  # each by itself, without padding
        with torch.no_grad():
            targets = model(input_values=item["input_values"][None]).logits[0].double()
        student = logits[i, : (lengths[i] - 41) // 20 + 1].double()
        p, q = (np.exp(x.numpy() / 2) / np.exp(x.numpy() / 2).sum(1, keepdims=True) for x in (student, targets))
        entropies.append(-(q * np.log(p)).sum(1))
    assert loss.item() == pytest.approx(0.5 / 1.5 * np.concatenate(entropies).mean(), rel=1e-4)

    spoiled = batch["input_values"].clone()
    shorter = lengths.index(min(lengths))
    spoiled[shorter, :, min(lengths) :] = 1e3
    logits[shorter, (min(lengths) - 41) // 20 + 1 :] = 50.0
    again = guide(torch.tensor(0.0), {"logits": logits}, batch | {"input_values": spoiled}, 1.0)
    assert again.item() == pytest.approx(loss.item(), rel=1e-4)


def test_frames_of_the_context_teach_only_where_they_are_labelled(recipe):
    _, data, arguments = recipe(augmentations={}, jitter=False, loss_span="window")
    task = DistilledCTC.load(data, arguments)
    guide = task.guide(arguments)
    batch = task.collate([task.splits["train"][1]])
    logits = torch.randn(1, (batch["input_values"].shape[-1] - 41) // 20 + 1, 99)
    before, after = CONTEXT
    samples = np.arange(logits.shape[1])[:, None] * 20 + np.arange(41)  # that each frame sees
    inside = ((samples >= before) & (samples < before + 2000)).all(1)
    assert 0 < inside.sum() < len(inside) and batch["input_values"].shape[-1] == before + 2000 + after
    loss = guide(torch.tensor(0.0), {"logits": logits}, batch, 1.0)
    spoiled = torch.where(torch.tensor(inside)[:, None], logits, 10 * logits)
    assert guide(torch.tensor(0.0), {"logits": spoiled}, batch, 1.0).item() == pytest.approx(loss.item(), rel=1e-6)
    edge = logits.clone()
    edge[0, np.flatnonzero(inside)[0]] *= 10
    assert guide(torch.tensor(0.0), {"logits": edge}, batch, 1.0).item() != pytest.approx(loss.item(), rel=1e-3)


def test_the_loss_of_the_labels_is_weighed_as_a_whole(recipe):
    """With what the student's own trainer adds to it."""
    still = {f"{part}_dropout": 0.0 for part in ("hidden", "activation", "attention", "feat_proj", "final")}
    model, data, arguments = recipe(augmentations={}, alignment_weight=0.5, model_config=SMALL | still)
    task = DistilledCTC.load(data, arguments)
    DistilledCTC.complete(model, arguments)
    trainer = make_trainer(task.build_model(model), task, arguments)
    batch = task.collate([task.splits["train"][i] for i in range(2)])
    both = trainer.compute_loss(trainer.model.train(), batch).item()
    trainer.guide = replace(trainer.guide, beta=0.0)
    teacher = trainer.compute_loss(trainer.model, batch).item()
    labels = trainer.label_loss(trainer.model, batch)[0].item()
    assert both == pytest.approx((0.5 * teacher + 1.0 * labels) / 1.5, rel=1e-5)
    arguments.alignment_weight = 0.0
    assert labels > trainer.label_loss(trainer.model, batch)[0].item()
    evaluated = trainer.compute_loss(trainer.model.eval(), batch).item()
    assert evaluated == pytest.approx(trainer.label_loss(trainer.model, batch)[0].item())  # no teacher


def test_stored_logits_are_found_in_any_batch(recipe):
    _, data, arguments = recipe(augmentations={}, jitter=False)
    task = DistilledCTC.load(data, arguments)
    online = task.guide(arguments)
    arguments.teacher_logits = "cached"
    cached = task.guide(arguments)
    windows = [task.splits["train"][i] for i in (len(task.splits["train"]) - 1, 0)]  # in another order
    batch = task.collate(windows)
    told, stored = online.teacher(batch), cached.teacher(batch)
    real = task.frame_lengths(batch)
    assert stored.shape == told.shape and len(set(real.tolist())) == 2
    for i, frames in enumerate(real):
        torch.testing.assert_close(stored[i, :frames], told[i, :frames], atol=5e-3, rtol=2e-3)
    outputs = {"logits": torch.randn(told.shape)}
    both = [guide(torch.tensor(1.0), outputs, batch, 1.0).item() for guide in (online, cached)]
    assert both[1] == pytest.approx(both[0], rel=1e-4)


def test_what_changes_windows_excludes_stored_logits(recipe):
    with pytest.raises(RecipeError, match=r"augmentations \(electrode_rotation\) change: remove them"):
        recipe(teacher_logits="cached")
    with pytest.raises(RecipeError, match="add `jitter: false`"):
        recipe(teacher_logits="cached", augmentations={})


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_teachers_whose_frames_or_characters_are_others(recipe, teacher):
    student = SMALL | {"conv_stride": [5, 2, 4]}
    model, data, arguments = recipe(model_config=student)
    with pytest.raises(CheckpointError, match="teacher has 20 samples from frame to frame, the student 40.*conv_str"):
        DistilledCTC.load(data, arguments).build_model(model)
    model, data, arguments = recipe(model_config=SMALL | {"conv_kernel": [11, 3, 5]})
    with pytest.raises(CheckpointError, match="teacher has 41 samples per frame, the student 61"):
        DistilledCTC.load(data, arguments).build_model(model)

    preprocessing = teacher / "preprocessor_config.json"
    before = preprocessing.read_text()
    for fields, message in (
        ({"sampling_rate": 1000}, "sampling_rate=1000"),
        ({"bands": [8, 24]}, r"bands=\[8, 24\]"),
        ({"rotation": [1, 0]}, r"rotation=\[1, 0\]"),
    ):
        edit_json(preprocessing, **fields)
        with pytest.raises(CheckpointError, match=f"was trained with {message}, synthetic has"):
            DistilledCTC.load(data, arguments)
        preprocessing.write_text(before)

    characters = list(EmgCharacterTokenizer().characters)
    EmgCharacterTokenizer(characters=[characters[1], characters[0], *characters[2:]]).save_pretrained(teacher)
    with pytest.raises(CheckpointError, match="teacher: .*character"):
        DistilledCTC.load(data, arguments)


def test_learning_rates_are_those_of_the_paper(recipe, shared_dir):
    papers = [path.read_text(encoding="utf-8") for path in sorted((shared_dir / "seeds").glob("003_*.txt"))]
    if not papers:
        pytest.skip("needs the text of the paper")
    table = papers[0].split("Table 8:")[1].split("#### A.4")[0]
    rows = re.findall(r"\t(\d+)\t(\d+)\t(\de-\d\d)", table)
    assert len(rows) == 20
    for hidden_size, layers, rate in rows:
        preset = {"preset": f"semg-transformer-{hidden_size}x{layers}", "model_config": {}}
        model, _, arguments = recipe(**preset)
        DistilledCTC.complete(model, arguments)
        assert arguments.learning_rate == float(rate), preset
    model, _, arguments = recipe(learning_rate=2e-3)
    DistilledCTC.complete(model, arguments)
    assert arguments.learning_rate == 2e-3


def test_fields_are_those_of_the_students_task(recipe):
    with pytest.raises(RecipeError, match="unknown field 'class_weights'"):
        recipe(class_weights="balanced")
