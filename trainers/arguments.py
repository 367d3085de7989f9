"""What a recipe can say, as dataclass fields: the model, the data, and one group of training fields per task.

Every task trains with `TrainArguments`: the library's `TrainingArguments` with the defaults of the paper's fine-tuning
recipe ("TinyMyo", section 3.3 and Table 2). `trainers/parsing.py` reads recipes into these classes.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from transformers import PreTrainedConfig, TrainingArguments

from tinymyo_hf import TinyMyoConfig
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMG_TRANSFORMER_PRESETS, SEMGTransformerConfig
from tinymyo_hf.tiny_biomoe.configuration_tiny_biomoe import TINY_BIOMOE_PRESETS, TinyBioMoEConfig
from trainers.errors import RecipeError

FAMILIES = (TinyMyoConfig, SEMGTransformerConfig, TinyBioMoEConfig)
ADAPTED_LAYERS = {
    TinyMyoConfig: ["qkv", "proj", "fc1", "fc2"],
    SEMGTransformerConfig: ["q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"],
    TinyBioMoEConfig: ["q", "kv", "proj", "fc1", "fc2"],
}
"""The linear layers of the blocks of each family."""

QUANTIZATION_AWARE_TASKS = ("classification", "regression", "events")

# What is better when it is lower, beside losses: the library takes any other score for one that is better when higher.
ERRORS = (
    "mae", "rmse", "misses_per_hour", "false_activations_per_hour", "cer", "ier", "der", "ser", "wer", "mel_distance",
    "mcd",
)  # fmt: skip


def mapping(name: str, value: dict | str | None) -> dict[str, Any]:
    """The value of a field that is a mapping, which the command line gives as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise RecipeError(f"{name} must be a mapping in YAML or JSON, got {value!r} ({error})") from None
    if value is not None and not isinstance(value, dict):
        raise RecipeError(f"{name} must be a mapping, got {value!r}")
    return dict(value or {})


def check_model_config(model_config: Mapping[str, Any], family: type[PreTrainedConfig]) -> None:
    """Raise `RecipeError` for a field that the configuration of this family of models does not have."""
    known = list(family.__dataclass_fields__)
    unknown = sorted(model_config.keys() - set(known))
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else "correct its name or remove it"
        raise RecipeError(f"model_config: {family.__name__} has no field {unknown[0]!r}; {hint}")


@dataclass
class ModelArguments:
    """Which model is trained, and how much of it."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Pretrained checkpoint (folder or Hub id); none trains from scratch."}
    )
    preset: str = field(default="tinymyo-base", metadata={"help": "Named configuration, when training from scratch."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the configuration that replace the preset's or the checkpoint's."}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head only."})
    lora: bool = field(default=False, metadata={"help": "Train low-rank adapters and the head; needs `peft`."})
    lora_r: int = field(default=8, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapters (alpha / r)."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(ADAPTED_LAYERS[TinyMyoConfig]),
        metadata={"help": "Layers that get an adapter; by default the linear layers of the blocks."},
    )

    def __post_init__(self) -> None:
        self.model_config = mapping("model_config", self.model_config)
        family = self._family()
        if family is not None:  # said here, before any data are prepared
            check_model_config(self.model_config, family)
            if self.lora_target_modules == ADAPTED_LAYERS[TinyMyoConfig]:
                self.lora_target_modules = list(ADAPTED_LAYERS[family])
        if self.lora and self.freeze_encoder:
            raise RecipeError("lora and freeze_encoder exclude each other: LoRA already freezes the encoder's weights")

    def _family(self) -> type[PreTrainedConfig] | None:
        """The configuration class of the model; None where that is known only when the checkpoint is read."""
        if self.model_name_or_path is None:
            presets = {SEMGTransformerConfig: SEMG_TRANSFORMER_PRESETS, TinyBioMoEConfig: TINY_BIOMOE_PRESETS}
            return next((family for family, names in presets.items() if self.preset in names), TinyMyoConfig)
        try:
            stored = json.loads((Path(self.model_name_or_path) / "config.json").read_text(encoding="utf-8"))
            return {family.model_type: family for family in FAMILIES}.get(stored["model_type"])
        except (OSError, ValueError, KeyError, TypeError):  # of the Hub, or damaged: whoever loads it says so
            return None


@dataclass
class DataArguments:
    """Which windows it is trained on."""

    dataset: str | None = field(
        default=None, metadata={"help": "A builder (uci_emg, synthetic, emg_folder) or a prepared folder."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder or archive with the raw files."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where prepared windows are kept."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that prepare the windows."})
    dataset_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the builder's configuration: window_length, stride, ..."}
    )
    train_fraction: float = field(
        default=1.0, metadata={"help": "Share of the training windows to learn from, of each class alike."}
    )
    train_fraction_seed: int = field(default=0, metadata={"help": "Decides which windows these are."})

    def __post_init__(self) -> None:
        self.dataset_config = mapping("dataset_config", self.dataset_config)
        if not 0.0 < self.train_fraction <= 1.0:
            raise RecipeError(f"train_fraction={self.train_fraction}: must be in (0, 1]; 1 takes all training windows")


@dataclass
class TrainArguments(TrainingArguments):
    """How it is trained: `TrainingArguments` with the paper's defaults, and what the library does not have."""

    TASK: ClassVar[str] = ""
    """Value of the field `task` in recipes of this kind."""

    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "One training run per seed."})
    layer_decay: float = field(
        default=0.9, metadata={"help": "Learning-rate factor from one layer to the one below it; 1 for none."}
    )
    encoder_lr_factor: float = field(
        default=1.0, metadata={"help": "Learning-rate factor from the head to the encoder, to keep what it has learnt."}
    )
    early_stopping_patience: int = field(
        default=7, metadata={"help": "Evaluations without improvement before training stops; 0 never stops."}
    )
    augmentations: dict | str | None = field(
        default=None, metadata={"help": "Train-time transforms by name, in order (see trainers/augmentation.py)."}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "Evaluate and save a moving average of the weights with this decay."}
    )
    lr_drop_epochs: list[float] = field(
        default_factory=list, metadata={"help": "Epochs after which the learning rate is multiplied by lr_drop_factor."}
    )
    lr_drop_factor: float = field(default=0.5, metadata={"help": "See lr_drop_epochs."})
    quantization_aware: bool = field(
        default=False,
        metadata={"help": "Train a network that computes in int8, simulated, to be exported so without loss."},
    )
    baselines: bool = field(default=True, metadata={"help": "Also report the classical models on the same split."})
    overwrite: bool = field(default=False, metadata={"help": "Replace another run in output_dir."})

    # The library's fields, with the defaults of the paper's fine-tuning recipe.
    per_device_train_batch_size: int = field(default=32)
    per_device_eval_batch_size: int = field(default=128)
    num_train_epochs: float = field(default=50)
    learning_rate: float = field(default=5e-4)
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps, or their share of all steps if < 1."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=lambda: {"min_lr": 1e-5})
    weight_decay: float = field(default=0.01)
    adam_beta2: float = field(default=0.98)
    eval_strategy: str = field(default="epoch")
    save_strategy: str = field(default="epoch")
    logging_strategy: str = field(default="epoch")
    save_total_limit: int | None = field(default=1)
    load_best_model_at_end: bool = field(default=True)
    metric_for_best_model: str | None = field(default="loss")
    report_to: None | str | list[str] = field(default="tensorboard")
    restore_callback_states_from_checkpoint: bool = field(default=True)
    remove_unused_columns: bool = field(default=False)

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise RecipeError("the recipe names no output_dir: add `output_dir: runs/NAME` or pass --output_dir")
        self.augmentations = mapping("augmentations", self.augmentations)
        self.lr_scheduler_kwargs = mapping("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        if not self.seeds:
            raise RecipeError("seeds is empty: name at least one, for instance `seeds: [0]`")
        if not 0.0 < self.lr_drop_factor <= 1.0 or any(epoch <= 0 for epoch in self.lr_drop_epochs):
            raise RecipeError(
                f"lr_drop_epochs={self.lr_drop_epochs}, lr_drop_factor={self.lr_drop_factor}: epochs must be positive, "
                "and the factor in (0, 1]"
            )
        task = getattr(self, "STUDENT_TASK", self.TASK)
        if self.quantization_aware and task not in QUANTIZATION_AWARE_TASKS:
            raise RecipeError(
                f"quantization_aware: a {task} cannot be trained so, only {', '.join(QUANTIZATION_AWARE_TASKS)} can; "
                "remove it"
            )
        if self.greater_is_better is None and self.selection_metric in ERRORS:
            self.greater_is_better = False
        if not torch.cuda.is_available():
            self.dataloader_pin_memory = False
            if self.bf16 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
                self.use_cpu = True  # without a GPU the library has bf16, and several processes, only if asked for it
        super().__post_init__()

    @classmethod
    def kind(cls) -> dict[str, str]:
        """The fields of a recipe that choose these arguments."""
        return {"task": cls.TASK}

    @property
    def selection_metric(self) -> str:
        """The validation score that decides which weights are kept."""
        return (self.metric_for_best_model or "loss").removeprefix("eval_")


@dataclass
class ClassificationArguments(TrainArguments):
    """Training a classifier of windows."""

    TASK: ClassVar[str] = "classification"

    class_weights: Literal["none", "balanced"] = field(
        default="none", metadata={"help": "balanced weighs classes by their inverse frequency in the training split."}
    )
    label_smoothing_factor: float = field(default=0.1)
    metric_for_best_model: str | None = field(default="accuracy")


@dataclass
class ImageClassificationArguments(ClassificationArguments):
    """Training a classifier of windows that sees them as images, Tiny-BioMoE; Adam at 1e-3, as its authors say."""

    TASK: ClassVar[str] = "image_classification"

    images: dict | str | None = field(
        default=None,
        metadata={"help": "How windows are drawn: representations, channels_as, ... of BiosignalImageProcessor."},
    )
    per_device_train_batch_size: int = field(default=16)
    per_device_eval_batch_size: int = field(default=8)
    learning_rate: float = field(default=1e-3)
    layer_decay: float = field(default=1.0)
    weight_decay: float = field(default=0.0)
    adam_beta2: float = field(default=0.999)

    def __post_init__(self) -> None:
        self.images = mapping("images", self.images)
        super().__post_init__()
        if self.augmentations:
            raise RecipeError(
                "augmentations: they are for models of signals; images are drawn before they could be applied; remove "
                "them"
            )


@dataclass
class RegressionArguments(TrainArguments):
    """Training a regression of trajectories; the loss is the mean absolute error."""

    TASK: ClassVar[str] = "regression"

    metric_for_best_model: str | None = field(default="mae")


@dataclass
class EventsArguments(TrainArguments):
    """Training a detector of events, frame by frame: with Adam at a rate that is halved once, as the paper says."""

    TASK: ClassVar[str] = "events"

    augmentations: dict | str | None = field(
        # of -2 to 2 electrodes, each as likely
        default_factory=lambda: {"electrode_rotation": {"max_shift": 2, "probability": 0.8}},
        metadata={"help": "Train-time transforms by name, in order (see trainers/augmentation.py)."},
    )
    lr_drop_epochs: list[float] = field(default_factory=lambda: [25.0])
    layer_decay: float = field(default=1.0)
    early_stopping_patience: int = field(default=30)

    per_device_train_batch_size: int = field(default=64)
    per_device_eval_batch_size: int = field(default=16)
    num_train_epochs: float = field(default=250)
    warmup_steps: float = field(default=0.02)  # 5 of 250 epochs
    lr_scheduler_type: str = field(default="constant_with_warmup")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=dict)
    weight_decay: float = field(default=0.0)
    adam_beta2: float = field(default=0.999)
    metric_for_best_model: str | None = field(default="f1")


@dataclass
class PersonalizationArguments(ClassificationArguments):
    """Calibrating a classifier to people it was not trained on; the training fields are those of the generic model."""

    TASK: ClassVar[str] = "personalization"

    protocol: Literal["leave_subjects_out", "checkpoint"] = field(
        default="leave_subjects_out",
        metadata={
            "help": "leave_subjects_out trains a model for every group of subjects, on the others; checkpoint takes "
            "the classifier of model_name_or_path for all."
        },
    )
    folds: int | None = field(
        default=None, metadata={"help": "Groups of subjects that are held out together; none: every subject alone."}
    )
    splits: list[str] = field(
        default_factory=lambda: ["test"],
        metadata={
            "help": "Whose subjects the checkpoint is personalised to; its training subjects are those of train."
        },
    )
    shots: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Repetitions of each gesture that calibrate."}
    )
    evaluation_repetitions: int | None = field(
        default=None, metadata={"help": "Evaluate on the last so many; none: on all after the most shots."}
    )
    methods: list[str] = field(
        default_factory=lambda: ["head", "lora", "full"], metadata={"help": "What a calibration trains."}
    )
    calibration: dict | str | None = field(
        default=None, metadata={"help": "Method -> fields that replace its defaults (see trainers/calibration.py)."}
    )

    def __post_init__(self) -> None:
        self.calibration = mapping("calibration", self.calibration)
        super().__post_init__()
