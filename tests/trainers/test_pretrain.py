"""Pretraining: what is left after stops and in several processes, what is written, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file
from tiny_pretraining import NO_DROPOUT, recipe, tiny_corpora, use
from tiny_run import TINY_MODEL
from transformers import TrainerCallback

import tinymyo_hf
import trainers.pretrain as pretrain
from dataset_builders.errors import DataError
from tinymyo_hf import TinyMyoForPreTraining
from trainers.errors import DivergenceError, RecipeError
from trainers.parsing import parse_recipe
from trainers.pretrain_trainer import PretrainingTrainer, window_sums


@pytest.fixture
def corpora(monkeypatch):
    """The tiny corpora, which a test may change before it trains."""
    corpora = tiny_corpora()
    use(corpora, monkeypatch.setattr)
    return corpora


@pytest.fixture
def pretrain_tiny(corpora, monkeypatch, tmp_path):
    """A function that pretrains on the tiny corpora: its fields as keywords, `output_dir` in the test's folder."""

    def train(plots=False, output_dir="run", **fields):
        if not plots:
            monkeypatch.setattr(pretrain, "write_plots", lambda *args: None)
        fields["output_dir"] = str(tmp_path / output_dir)
        return pretrain.run(*parse_recipe(recipe(**fields)))

    return train


class Interrupt(Exception):
    pass


class InterruptAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Interrupt


@pytest.fixture
def interrupt_at(monkeypatch):
    """A function that lets the next training stop before a step; with None, it runs to its end."""
    make = pretrain._make_trainer

    def arm(step):
        def make_and_arm(*args):
            trainer = make(*args)
            if step is not None:
                trainer.add_callback(InterruptAt(step))
            return trainer

        monkeypatch.setattr(pretrain, "_make_trainer", make_and_arm)

    return arm


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def test_the_papers_recipe(tmp_path):
    _, _, arguments = parse_recipe("pretrain_paper", ["--output_dir", str(tmp_path)])
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert (batch, arguments.num_train_epochs, arguments.warmup_steps) == (512, 50, 10 / 50)
    assert (arguments.learning_rate, arguments.lr_scheduler_kwargs) == (1e-4, {"min_lr": 1e-6})
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.weight_decay) == (0.9, 0.98, 0.01)
    assert (arguments.max_grad_norm, arguments.num_channels, arguments.optim) == (3.0, 16, "adamw_torch_fused")
    assert [corpus.dataset for corpus in arguments.mix] == ["ninapro_db6", "ninapro_db7", "emg2pose"]
    assert all(corpus.probability is None for corpus in arguments.mix)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(pretrain_tiny, interrupt_at, tmp_path):
    # Checkpoints in the middle of an epoch; stops before the first, between two, and in another epoch.
    fields = {
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 5,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 4,
    }
    whole = pretrain_tiny(output_dir="whole", **fields)
    for step in (2, 13, 20):
        interrupt_at(step)
        with pytest.raises(Interrupt):
            pretrain_tiny(output_dir="stopped", **fields)
    interrupt_at(None)
    resumed = pretrain_tiny(output_dir="stopped", **fields)
    assert resumed["steps"] == whole["steps"] == 24
    assert resumed["losses"] == whole["losses"]
    assert [row["loss"] for row in resumed["evaluations"]] == [row["loss"] for row in whole["evaluations"]]
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(expected[name], found[name]) for name in expected) and expected.keys() == found.keys()


def test_what_a_run_lacks_after_its_last_step_is_made_up_for(pretrain_tiny, monkeypatch, tmp_path):
    # Stopped while it wrote its report; no evaluation was due at the last step.
    fields = {"num_train_epochs": 1, "eval_strategy": "steps", "eval_steps": 5}
    write = pretrain.write_pretraining_card

    def stop(*args):
        raise Interrupt

    monkeypatch.setattr(pretrain, "write_pretraining_card", stop)
    with pytest.raises(Interrupt):
        pretrain_tiny(**fields)
    before = weights(tmp_path / "run")
    monkeypatch.setattr(pretrain, "write_pretraining_card", write)
    results = pretrain_tiny(**fields)
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path / "run").items())
    assert [row["step"] for row in results["losses"]] == list(range(1, 9))
    assert [row["step"] for row in results["evaluations"]] == [5, 8]


def test_two_processes_equal_one_with_twice_the_batch(pretrain_tiny, tmp_path):
    # The windows of an update differ in their channels, so that processes have different numbers of tokens.
    fields = {"model_config": TINY_MODEL | NO_DROPOUT, "num_train_epochs": 2}
    single = pretrain_tiny(output_dir="single", **fields)
    fields |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "output_dir": str(tmp_path / "two")}
    script = Path(__file__).with_name("tiny_pretraining.py")
    found = tmp_path / "found.json"
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        + [str(script), json.dumps(fields), str(found)],
        check=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )
    found = json.loads(found.read_text())
    expected = [row["loss"] for row in single["losses"]]
    assert len(expected) == 16 and expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose([row["loss"] for row in found["losses"]], expected, rtol=2e-5)
    for name, value in weights(tmp_path / "single").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-3, atol=1e-4)
    assert found["sharded"]["shard"] == 0.5
    assert all(found["sharded"][name] < 1e-6 for name in ("loss", "gradient", "features"))


def test_the_configuration_of_sharded_training():
    path = Path(pretrain.__file__).with_name("fsdp.yaml")
    config = ClusterConfig.from_yaml_file(str(path))
    assert config.distributed_type == "FSDP"
    names = {f"--{name}" for name in config.fsdp_config}
    assert names <= set(launch_command_parser()._option_string_actions)  # each is one that `accelerate launch` takes
    layer = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    assert layer in TinyMyoForPreTraining._no_split_modules


def test_micro_batches_equal_one_batch(pretrain_tiny, tmp_path):
    fields = {"model_config": TINY_MODEL | NO_DROPOUT, "num_train_epochs": 1}
    one = pretrain_tiny(output_dir="one", **fields)
    four = pretrain_tiny(output_dir="four", per_device_train_batch_size=2, gradient_accumulation_steps=4, **fields)
    np.testing.assert_allclose([row["loss"] for row in four["losses"]], [row["loss"] for row in one["losses"]], 1e-5)
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "four")[name], value, rtol=1e-3, atol=1e-4)


def test_the_loss_is_the_papers_over_real_tokens_alone(corpora, pretrain_tiny, interrupt_at, tmp_path):
    # With a learning rate of 0 the first logged loss is that of the initial weights, which the checkpoint still has.
    results = pretrain_tiny(
        learning_rate=0.0, num_train_epochs=1, lr_scheduler_type="constant", model_config=TINY_MODEL | NO_DROPOUT
    )
    model = TinyMyoForPreTraining.from_pretrained(tmp_path / "run").eval()
    arguments = parse_recipe(recipe(output_dir=str(tmp_path / "other")))[2]
    train, _ = pretrain.make_mixes(pretrain.load_corpora(arguments.mix), arguments, 10, 0.5)
    masked, visible = [], []
    for item in train.__getitems__(range(8)):
        real = 4 if item["source"] == 0 else 3
        window = item["input_values"][:real]
        mask = item["bool_masked_pos"].view(4, 4)[:real]
        with torch.no_grad():  # without padding at all
            restored = model(window[None], bool_masked_pos=mask.reshape(1, -1)).reconstruction.view(real, 4, 10)
        error = torch.nn.functional.smooth_l1_loss(restored, window.view(real, 4, 10), reduction="none").mean(-1)
        masked += error[mask].tolist()
        visible += error[~mask].tolist()
    assert results["losses"][0]["loss"] == pytest.approx(np.mean(masked) + 0.1 * np.mean(visible), rel=1e-5)


def test_scores_of_validation_windows():
    # A real channel of two patches, of which the first is masked, and a padded one. RMS: 1 and 7; 7 again is padding.
    outputs = {
        "token_loss": torch.tensor([[0.125, 1.5, 9.0, 9.0]]),
        "reconstruction": torch.tensor([[[1.5, -0.5], [3.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]),
        "log_rms": torch.tensor([[0.5, 0.0, 0.0, 0.0]]),
    }
    batch = {
        "input_values": torch.tensor([[[1.0, -1.0, 7.0, -7.0], [7.0, 7.0, 7.0, 7.0]]]),
        "bool_masked_pos": torch.tensor([[True, False, False, False]]),
        "channel_mask": torch.tensor([[True, False]]),
    }
    # Of what is masked: errors of 0.5 and 0.5, and deviations of 1 and 1 from the channel's mean of 0; an error of 0.5
    # in log RMS, and a deviation of log 7 / 2 from the mean of log 1 and log 7.
    expected = [0.125, 1, 1.5, 1, 0.5, 2, 0.25, (np.log(7) / 2) ** 2]
    assert window_sums(batch, outputs, 2)[0].tolist() == pytest.approx(expected, rel=2e-3)
    del outputs["log_rms"]
    assert window_sums(batch, outputs, 2)[0, 6] == 0


def test_the_strength_of_patches_is_scored_where_it_is_a_target(pretrain_tiny, tmp_path):
    results = pretrain_tiny(plots=True, reconstructions=1, model_config=TINY_MODEL | {"power_loss_weight": 1.0})
    scores = [row["strength_explained"] for row in results["evaluations"]]
    assert scores[0] < scores[-1] < 1
    assert "strength explained %" in results["summary"]
    assert "how strong each is" in (tmp_path / "run/README.md").read_text()


def test_a_folder_has_all_that_a_user_needs(pretrain_tiny, tmp_path):
    results = pretrain_tiny(
        plots=True,
        num_train_epochs=2,
        reconstructions=2,
        probe={"dataset": "tiny_four", "max_windows": 30},
        eval_strategy="steps",
        eval_steps=8,
    )
    folder = tmp_path / "run"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert names == {"learning_curves.png", "reconstructions/step-0000008.png", "reconstructions/step-0000016.png"}
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["parameters"]["total"] == sum(value.numel() for value in weights(folder).values())
    assert results["batch"] == {"windows": 8, "accumulation": 1, "processes": 1, "total": 8}
    assert [row["step"] for row in results["evaluations"]] == [8, 16]
    assert all(0 <= row["probe_accuracy"] <= 1 and "tiny_three_loss" in row for row in results["evaluations"])
    card = (folder / "README.md").read_text()
    for fact in ("tiny_four", "tiny_three", "| 40 |", "Linear probe on tiny_four", "16 steps (2 epochs)", "licence"):
        assert fact in card
    assert not list(folder.rglob("checkpoint-*"))
    assert pretrain_tiny(num_train_epochs=2, reconstructions=2, probe={"dataset": "tiny_four", "max_windows": 30},
                         eval_strategy="steps", eval_steps=8) == results  # fmt: skip  # finished earlier


@pytest.mark.parametrize(
    ("head", "fields", "new_parts"),
    [
        ("TinyMyoModel", {}, ()),
        ("TinyMyoForSequenceClassification", {"num_labels": 2}, ()),
        ("TinyMyoForRegression", {"num_labels": 2}, ()),
        ("TinyMyoForFrameClassification", {"stem": "convolution", "is_causal": True}, ("stem", "patch_embedding")),
    ],
)
def test_every_head_takes_the_encoder(head, fields, new_parts, pretrained):
    model, found = getattr(tinymyo_hf, head).from_pretrained(pretrained, output_loading_info=True, **fields)
    encoder = {name: value for name, value in weights(pretrained).items() if name.startswith("tinymyo.")}
    loaded = model.base_model.state_dict()
    taken = [name for name in encoder if not name.startswith(tuple(f"tinymyo.{part}." for part in new_parts) or " ")]
    assert len(taken) > 20
    for name in taken:
        assert torch.equal(loaded[name.removeprefix("tinymyo.")], encoder[name]), name
    heads = [name for name, _ in model.named_children() if name != "tinymyo"] if head != "TinyMyoModel" else []
    allowed = (*heads, *(f"tinymyo.{part}" for part in new_parts))
    assert all(name.startswith(allowed or " ") for name in found["missing_keys"])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        use(tiny_corpora(), patch.setattr)
        patch.setattr(pretrain, "write_plots", lambda *args: None)
        pretrain.run(*parse_recipe(recipe(output_dir=str(folder / "run"), num_train_epochs=1)))
    return folder / "run"


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_batch(corpora, pretrain_tiny, monkeypatch, tmp_path):
    compute = PretrainingTrainer.compute_loss

    def nan_at_step_13(self, *args, **kwargs):
        return compute(self, *args, **kwargs) * (float("nan") if self.state.global_step == 12 else 1.0)

    monkeypatch.setattr(PretrainingTrainer, "compute_loss", nan_at_step_13)
    with pytest.raises(DivergenceError, match=r"step 13 \(epoch 1.50\): the loss is nan.*tiny_four.* r.*") as caught:
        pretrain_tiny()
    good = tmp_path / "run/seed-0/checkpoint-8"
    assert str(good) in str(caught.value)
    assert all(value.isfinite().all() for value in weights(good).values())
    assert not (tmp_path / "run/results.json").exists()


def test_a_gradient_that_is_not_finite_changes_no_weight(pretrain_tiny, monkeypatch):
    step = PretrainingTrainer.training_step

    def break_gradient(self, model, *args):
        loss = step(self, model, *args)
        self.before = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.model.mask_token.grad[0] = float("inf")
        break_gradient.trainer = self
        return loss

    monkeypatch.setattr(PretrainingTrainer, "training_step", break_gradient)
    with pytest.raises(DivergenceError, match="step 1 .*norm of the gradient is (inf|nan).*no checkpoint"):
        pretrain_tiny()
    trainer = break_gradient.trainer
    assert all(torch.equal(value, trainer.before[name]) for name, value in trainer.model.named_parameters())


def test_bfloat16_on_the_cpu(pretrain_tiny):
    results = pretrain_tiny(bf16=True, num_train_epochs=2)
    full = pretrain_tiny(output_dir="full", max_steps=1)
    first = results["losses"][0]["loss"], full["losses"][0]["loss"]
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.02)
    assert results["losses"][-1]["loss"] < first[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpora": []}, "names no corpora"),
        ({"corpora": [{"dataset": "tiny_for"}]}, "'tiny_for' is neither a builder"),
        ({"corpora": [{"data_dir": "x"}]}, r"corpora\[0\] names no dataset"),
        ({"corpora": [{"dataset": "tiny_four", "weight": 1}]}, r"corpora\[0\]: unknown field 'weight'"),
        ({"corpora": [{"dataset": "tiny_four", "probability": 0}]}, "must be a positive number"),
        ({"corpora": [{"dataset": "tiny_four", "probability": 1}, {"dataset": "tiny_three"}]}, "to all of them"),
        ({"corpora": [{"dataset": "tiny_four", "jitter": True}]}, "rows: recordings"),
        ({"num_channels": 3}, "tiny_four has 4 channels, more than num_channels=3"),
        ({"per_device_train_batch_size": 65}, "64 windows, fewer than a batch of 65"),
        ({"model_config": TINY_MODEL | {"patch_size": 12}}, "no multiple of the model's patch_size 12"),
        ({"lora": True}, "lora has no meaning"),
        ({"dataset": "tiny_four"}, "dataset has no meaning .*list corpora instead"),
        ({"data_dir": "raw"}, "data_dir has no meaning"),
        ({"dataset_config": {"window_length": 40}}, "dataset_config has no meaning"),
        ({"train_fraction": 0.1}, "train_fraction has no meaning"),
        ({"probe": {"dataset": "tiny_four", "split": "test"}}, "probe: unknown field 'split'"),
        ({"train_sampling_strategy": "random"}, "shuffles its windows itself"),
    ],
)
def test_recipes_that_cannot_be_run(change, message, pretrain_tiny):
    with pytest.raises(RecipeError, match=message):
        pretrain_tiny(**change)


@pytest.mark.parametrize(("field", "value"), [("window_length", 20), ("sampling_rate", 100.0)])
def test_corpora_that_do_not_go_together_are_both_named(field, value, corpora, pretrain_tiny):
    setattr(corpora["tiny_three"][1], field, value)
    with pytest.raises(RecipeError, match=f"tiny_four and tiny_three cannot be mixed: {field} is .* and {value:g} "):
        pretrain_tiny()


def test_a_corpus_without_training_windows_is_named(corpora, pretrain_tiny):
    del corpora["tiny_three"][0]["train"]
    with pytest.raises(RecipeError, match="tiny_three has no training windows.*validation"):
        pretrain_tiny()


def test_windows_of_another_shape_than_announced_are_named(corpora, pretrain_tiny):
    for _, extractor in corpora.values():
        extractor.window_length = 60
    with pytest.raises(DataError, match=r"window \d+: \(\d, 40\) .* where \(\d, 60\)"):
        pretrain_tiny()
