"""Distillation: the loss of the formula, a teacher that only teaches, and runs that end as their descriptions say."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_finetune import Killed, kill_at
from tiny_run import LABELS, TINY_MODEL

import trainers.distill as distill
import trainers.tasks as tasks
import trainers.teacher_logits as teacher_logits
from tinymyo_hf import TinyMyoConfig, TinyMyoFeatureExtractor, TinyMyoForSequenceClassification
from trainers.classification import ClassificationTask
from trainers.distill import DistillationLoss, soft_target_loss
from trainers.errors import CheckpointError, RecipeError
from trainers.parsing import parse_recipe
from trainers.run import run_recipe

STUDENT = TINY_MODEL | {"hidden_size": 12, "num_hidden_layers": 1, "patch_size": 20}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0}


def softened(logits, temperature):
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def entropy_by_hand(student, teacher, temperature):
    p, q = softened(student, temperature), softened(teacher, temperature)
    return -sum(b * math.log(a) for a, b in zip(p, q, strict=True))


def test_loss_is_the_cross_entropy_of_softened_probabilities():
    student = [[[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], [[2.0, 2.0, -1.0], [9.0, 9.0, 9.0]]]
    teacher = [[[0.0, 1.0, 4.0], [5.0, -1.0, 0.0]], [[1.0, 0.0, 0.0], [7.0, -7.0, 0.0]]]
    mask = torch.tensor([[True, True], [True, False]])
    frames = [(0, 0), (0, 1), (1, 0)]  # the last one is padding
    by_hand = [entropy_by_hand(student[b][t], teacher[b][t], 2.0) for b, t in frames]

    logits = torch.tensor(student, requires_grad=True)
    loss = soft_target_loss(logits, torch.tensor(teacher), 2.0, mask)
    assert loss.item() == pytest.approx(sum(by_hand) / 3, rel=1e-6)
    loss.backward()
    for b, t in frames:
        p, q = softened(student[b][t], 2.0), softened(teacher[b][t], 2.0)
        expected = [(x - y) / 2.0 / 3 for x, y in zip(p, q, strict=True)]  # no factor temperature^2
        assert logits.grad[b, t].tolist() == pytest.approx(expected, abs=1e-7)
    assert logits.grad[1, 1].eq(0).all()
    flat = soft_target_loss(torch.tensor(student[0]), torch.tensor(teacher[0]), 2.0)  # windows with a class each
    assert flat.item() == pytest.approx(sum(by_hand[:2]) / 2, rel=1e-6)


def test_teacher_and_labels_are_weighed_as_in_the_formula():
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    soft = sum(entropy_by_hand(s, t, 2.0) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)) / 2
    guide = DistillationLoss(lambda inputs: teacher, temperature=2.0, alpha=0.5, beta=1.0)
    loss = guide(torch.tensor(0.7), {"logits": student}, {}, 1.0)
    assert loss.item() == pytest.approx((0.5 * soft + 1.0 * 0.7) / 1.5, rel=1e-6)
    # the second of four batches whose mean is the loss: its labels were divided by the windows of all four already
    quarter = guide(torch.tensor(0.7 / 4), {"logits": student}, {}, 0.25)
    assert quarter.item() == pytest.approx(loss.item() / 4, rel=1e-6)


@pytest.fixture
def teacher(tiny_corpus, tmp_path):
    """The folder of a classifier of the windows of the tiny corpus, with opinions that no label decided."""
    labels = dict(enumerate(LABELS))
    torch.manual_seed(0)
    config = TinyMyoConfig(**TINY_MODEL, num_channels=4, id2label=labels, label2id={n: i for i, n in labels.items()})
    model = TinyMyoForSequenceClassification(config)
    model.classifier.weight.data.normal_(std=0.5)
    model.save_pretrained(tmp_path / "teacher")
    TinyMyoFeatureExtractor(**tiny_corpus[1].to_dict() | {"patch_size": 10}).save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def logits_of(folder, split):
    """Logits (windows, classes) of a saved model for a split of windows."""
    model = TinyMyoForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_values=torch.tensor(split["input_values"][:])).logits


@pytest.fixture
def recipe(tiny_corpus, monkeypatch, tmp_path, teacher):
    """A function that gives a recipe in which `teacher` teaches on the tiny corpus: its fields as keywords."""
    monkeypatch.setattr(tasks, "load_corpus", lambda *args, **kwargs: tiny_corpus)
    monkeypatch.setattr(ClassificationTask, "write_plots", classmethod(lambda *args: None))  # they take longer

    def fields_of(output_dir="student", **fields):
        return {
            "task": "distillation",
            "student_task": "classification",
            "teacher_name_or_path": str(teacher),
            "dataset": "tiny",
            "output_dir": str(tmp_path / output_dir),
            "num_train_epochs": 2,
            "learning_rate": 3e-3,
            "model_config": STUDENT,
            "report_to": "none",
            "baselines": False,
            "disable_tqdm": True,
        } | fields

    return fields_of


@pytest.fixture
def distil(recipe):
    """A function that runs such a recipe."""
    return lambda **fields: run_recipe(recipe(**fields))


@pytest.fixture
def guide_of(recipe):
    """A function that gives the first training windows as a batch, and what such a recipe adds to their loss."""

    def make(**fields):
        _, data, arguments = parse_recipe(recipe(**fields))
        task = distill.DistilledClassification.load(data, arguments)
        return task.collate([task.splits["train"][i] for i in range(8)]), task.guide(arguments)

    return make


def test_a_run_reports_the_teacher_beside_the_student(distil, teacher, tiny_corpus, tmp_path):
    before = load_file(teacher / "model.safetensors")
    results = distil(seeds=[0, 1])
    test = tiny_corpus[0]["test"]
    accuracy = (logits_of(teacher, test).argmax(1) == torch.tensor(test["label"][:])).double().mean().item()
    assert results["baselines"]["teacher"]["accuracy"] == pytest.approx(accuracy)
    assert results["teacher"]["checkpoint"] == str(teacher)
    assert results["teacher"]["parameters"] > results["parameters"]["total"] == results["parameters"]["trainable"]
    assert f"| teacher | {100 * accuracy:.2f} |" in results["summary"]

    card = (tmp_path / "student/README.md").read_text()
    assert f"Distilled from the teacher `{teacher}`" in card and "with weights 0.5 and 1," in card
    assert "\nlicense:" not in card and "\n- distillation\n" in card and "| `teacher_name_or_path` |" in card
    student = TinyMyoForSequenceClassification.from_pretrained(tmp_path / "student")
    assert student.config.hidden_size == 12 and student.config.id2label == dict(enumerate(LABELS))
    after = load_file(teacher / "model.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    recorded = {**results["arguments"]["training"], "dataset": "tiny", "output_dir": "again"}
    assert parse_recipe(recorded)[2].teacher_name_or_path == str(teacher)


def test_no_gradient_reaches_the_teacher_and_it_sees_what_the_student_sees(distil, monkeypatch):
    seen, teachers = {"teacher": [], "student": []}, []

    class Watched(distill.OnlineTeacher):
        def __call__(self, inputs):
            teachers.append(self.model)
            seen["teacher"].append(inputs["input_values"].clone())
            logits = super().__call__(inputs)
            assert not self.model.training and not logits.requires_grad
            return logits

    forward = TinyMyoForSequenceClassification.forward

    def watched_forward(self, input_values, **kwargs):
        if self.training:
            seen["student"].append(input_values.clone())
        return forward(self, input_values=input_values, **kwargs)

    monkeypatch.setattr(distill, "OnlineTeacher", Watched)
    monkeypatch.setattr(TinyMyoForSequenceClassification, "forward", watched_forward)
    distil(augmentations={"gaussian_noise": {"std": 0.5}})
    assert len(seen["teacher"]) == 6  # training steps; evaluation does not ask
    assert all(torch.equal(a, b) for a, b in zip(seen["teacher"], seen["student"], strict=True))
    assert not torch.equal(*(torch.stack(seen["teacher"][i : i + 3]).sort().values for i in (0, 3)))  # augmented
    assert all(p.grad is None and not p.requires_grad for p in teachers[0].parameters())


def test_the_students_labels_keep_their_weight_when_batches_are_accumulated(distil, tmp_path):
    fields = {"model_config": STUDENT | NO_DROPOUT, "num_train_epochs": 1, "train_sampling_strategy": "sequential"}
    distil(output_dir="whole", per_device_train_batch_size=32, **fields)
    distil(output_dir="parts", per_device_train_batch_size=8, gradient_accumulation_steps=4, **fields)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-3)


def test_a_student_of_the_teacher_alone_needs_no_labels(distil, teacher, tiny_corpus, tmp_path):
    fields = {"alpha": 1.0, "beta": 0.0, "temperature": 1.0, "model_config": STUDENT | NO_DROPOUT}
    results = distil(num_train_epochs=1, per_device_train_batch_size=96, learning_rate=1e-12, **fields)
    windows = tiny_corpus[0]["train"]
    by_hand = soft_target_loss(logits_of(tmp_path / "student", windows), logits_of(teacher, windows), 1.0)
    assert results["runs"][0]["history"][0]["train_loss"] == pytest.approx(by_hand.item(), rel=1e-5)


def test_cached_logits_teach_the_same(distil, monkeypatch, tmp_path):
    online = distil(output_dir="online")
    monkeypatch.setattr(teacher_logits, "WINDOWS_PER_PART", 40)
    cached = distil(output_dir="cached", teacher_logits="cached")
    losses = [[row["train_loss"] for row in run["runs"][0]["history"]] for run in (online, cached)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert cached["teacher"]["teacher_logits"] == "cached"
    parts = sorted((tmp_path / "cached/teacher_logits").glob("*/*"))
    assert [part.name for part in parts] == [f"part-0000{i}.safetensors" for i in range(3)]
    assert [len(load_file(part)["keys"]) for part in parts] == [40, 40, 16]


def test_a_killed_cache_and_a_killed_run_continue(distil, monkeypatch, tmp_path):
    monkeypatch.setattr(teacher_logits, "WINDOWS_PER_PART", 40)
    whole = distil(output_dir="whole", teacher_logits="cached")
    asked = []
    answers = teacher_logits._answers

    def counted(*args):
        if len(asked) == 1:
            asked.append("killed")
            raise Killed
        asked.append(args)
        return answers(*args)

    monkeypatch.setattr(teacher_logits, "_answers", counted)
    with pytest.raises(Killed):
        distil(output_dir="killed", teacher_logits="cached")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step=4)
        distil(output_dir="killed", teacher_logits="cached")
    assert len(asked) == 4  # the first part, the kill, and the two parts that were left
    resumed = distil(output_dir="killed", teacher_logits="cached")
    assert len(asked) == 4
    assert resumed["runs"][0]["history"] == whole["runs"][0]["history"]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_stored_logits_are_for_one_teacher_and_these_windows(guide_of, teacher, tmp_path):
    (tmp_path / "student").mkdir()
    batch, before = guide_of(teacher_logits="cached")
    (old,) = (tmp_path / "student/teacher_logits").iterdir()
    weights = load_file(teacher / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, teacher / "model.safetensors", {"format": "pt"})
    _, after = guide_of(teacher_logits="cached")
    (new,) = (tmp_path / "student/teacher_logits").iterdir()
    assert new.name != old.name
    assert not torch.equal(after.teacher(batch), before.teacher(batch))
    with pytest.raises(RecipeError, match="not the same in every epoch"):
        after.teacher({"input_values": batch["input_values"] * 1.01})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher_name_or_path": None}, "needs a trained teacher: add `teacher_name_or_path"),
        ({"teacher_name_or_path": "./nowhere"}, "nowhere: no such checkpoint"),
        ({"teacher_logits": "cached", "augmentations": {"gaussian_noise": {}}}, "gaussian_noise.*remove them"),
        ({"temperature": 0}, "temperature=0.0: must be positive"),
        ({"alpha": 0}, "without a teacher use the student's task"),
        ({"student_task": "typing"}, "student_task is 'typing'; use one of classification"),
        ({"jitter": True}, "unknown field 'jitter'"),
    ],
)
def test_recipes_that_cannot_teach(distil, fields, message, tmp_path):
    with pytest.raises((RecipeError, CheckpointError), match=message):
        distil(**fields)
    assert not list(tmp_path.glob("student/seed-*"))


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_teachers_that_do_not_fit(distil, teacher):
    with pytest.raises(RecipeError, match="are both .*name another folder"):
        distil(output_dir="teacher", overwrite=True)
    config, preprocessing = teacher / "config.json", teacher / "preprocessor_config.json"
    before = config.read_text(), preprocessing.read_text()
    for path, fields, message in (
        (preprocessing, {"window_length": 60}, "trained with window_length=60"),
        (preprocessing, {"sampling_rate": 1000.0}, "trained with sampling_rate=1000.0"),
        (preprocessing, {"normalization": "none"}, "trained with normalization=none"),
        (config, {"id2label": {"0": "rest", "1": "fist", "2": "point"}, "label2id": {}}, "labels rest, fist, point"),
        (config, {"architectures": ["TinyMyoForRegression"]}, "holds TinyMyoForRegression"),
    ):
        edit_json(path, **fields)
        with pytest.raises(CheckpointError, match=message):
            distil()
        config.write_text(before[0])
        preprocessing.write_text(before[1])


def test_a_teacher_with_its_labels_in_another_order_teaches_the_same(guide_of, teacher):
    batch, same = guide_of()
    weights = load_file(teacher / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][[2, 0, 1]].contiguous()
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    names = [LABELS[i] for i in (2, 0, 1)]
    edit_json(teacher / "config.json", id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    torch.testing.assert_close(guide_of()[1].teacher(batch), same.teacher(batch))
