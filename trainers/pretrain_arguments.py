"""What a pretraining recipe can say.

    task: pretraining
    corpora:
      - {dataset: ninapro_db6, data_dir: raw/db6}
      - {dataset: emg2pose, data_dir: raw/emg2pose, jitter: true}
    probe: {dataset: uci_emg, data_dir: raw/uci_emg, dataset_config: {window_length: 1000}}

The defaults are the paper's ("TinyMyo", Table 1): 50 epochs in batches of 512, AdamW (0.9, 0.98), cosine from 1e-4 to
1e-6 after a warm-up of 10 epochs, gradients clipped at 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments

from trainers.arguments import mapping
from trainers.errors import RecipeError


@dataclass(frozen=True)
class CorpusArguments:
    """One corpus of the mix.

    Attributes:
        dataset: a builder, a folder written by `tinymyo prepare`, or the Hub id of one.
        data_dir: folder or archive with the raw files.
        dataset_config: fields of the builder's configuration. `rows: recordings` stores recordings, from which windows
            are cut as they are needed; otherwise windows are stored.
        probability: share of the windows of an epoch; given for all corpora or for none.
        jitter: cut each window at another place in every epoch (where recordings are stored).
    """

    dataset: str
    data_dir: str | None = None
    dataset_config: dict[str, Any] = field(default_factory=dict)
    probability: float | None = None
    jitter: bool = False

    @classmethod
    def read(cls, value: Any, where: str) -> CorpusArguments:
        """From an entry of a recipe, or its JSON from the command line.

        Raises:
            RecipeError: no mapping, an unknown field, or a value of the wrong kind.
        """
        value = mapping(where, value)
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(value.keys() - set(known))
        if unknown:
            raise RecipeError(f"{where}: unknown field {unknown[0]!r}; a corpus has {', '.join(known)}")
        if not isinstance(value.get("dataset"), str):
            raise RecipeError(f"{where} names no dataset: add `dataset: uci_emg`, another builder or a prepared folder")
        value["dataset_config"] = mapping(f"{where}.dataset_config", value.get("dataset_config"))
        share = value.get("probability")
        if share is not None and not (isinstance(share, int | float) and share > 0):
            raise RecipeError(f"{where}.probability={share!r}: must be a positive number")
        if not isinstance(value.get("jitter", False), bool):
            raise RecipeError(f"{where}.jitter={value['jitter']!r}: must be true or false")
        return cls(**value)


@dataclass(frozen=True)
class ProbeArguments:
    """The labelled windows of the linear probe: one corpus, with fewer windows if there are many.

    Attributes:
        dataset, data_dir, dataset_config: as for a corpus of the mix.
        max_windows: of each split, evenly spaced.
    """

    dataset: str
    data_dir: str | None = None
    dataset_config: dict[str, Any] = field(default_factory=dict)
    max_windows: int = 2000

    @classmethod
    def read(cls, value: Any) -> ProbeArguments:
        """From the field of a recipe; `RecipeError` as for a corpus."""
        value = mapping("probe", value)
        count = value.pop("max_windows", cls.max_windows)
        if not isinstance(count, int) or count < 1:
            raise RecipeError(f"probe.max_windows={count!r}: must be a whole number of at least 1")
        unknown = sorted(value.keys() - {"dataset", "data_dir", "dataset_config"})
        if unknown:
            raise RecipeError(
                f"probe: unknown field {unknown[0]!r}; it has dataset, data_dir, dataset_config and max_windows"
            )
        corpus = CorpusArguments.read(value, "probe")
        return cls(corpus.dataset, corpus.data_dir, corpus.dataset_config, count)


@dataclass
class PretrainingArguments(TrainingArguments):
    """Masked reconstruction of a mix of corpora: `TrainingArguments` with the paper's defaults, and the mix.

    The batch is `per_device_train_batch_size * gradient_accumulation_steps` windows in every process.
    """

    TASK: ClassVar[str] = "pretraining"

    corpora: list[str] = field(default_factory=list, metadata={"help": "The mix; each a mapping with `dataset`, ..."})
    num_channels: int | None = field(
        default=None, metadata={"help": "Channels of every window, padded where there are fewer; none: the most found."}
    )
    windows_per_epoch: int | None = field(
        default=None, metadata={"help": "Windows drawn in an epoch; none: as many as the corpora have."}
    )
    validation_windows: int = field(
        default=2048, metadata={"help": "At most so many validation windows of each corpus, evenly spaced."}
    )
    probe: dict | str | None = field(
        default=None, metadata={"help": "Labelled corpus on which frozen features are scored at each evaluation."}
    )
    reconstructions: int = field(default=3, metadata={"help": "Validation windows drawn at each evaluation; 0: none."})
    overwrite: bool = field(default=False, metadata={"help": "Replace another run in output_dir."})

    # The library's fields, with the defaults of the paper's pretraining.
    seed: int = field(default=0)
    per_device_train_batch_size: int = field(default=64)
    gradient_accumulation_steps: int = field(default=8)
    per_device_eval_batch_size: int = field(default=128)
    num_train_epochs: float = field(default=50)
    learning_rate: float = field(default=1e-4)
    warmup_steps: float = field(default=0.2, metadata={"help": "Warm-up steps, or their share of all steps if < 1."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr")
    lr_scheduler_kwargs: dict | str | None = field(default_factory=lambda: {"min_lr": 1e-6})
    weight_decay: float = field(default=0.01)
    adam_beta2: float = field(default=0.98)
    max_grad_norm: float = field(default=3.0)
    eval_strategy: str = field(default="epoch")
    save_strategy: str = field(default="epoch")
    logging_strategy: str = field(default="steps")
    logging_steps: float = field(default=20)
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A loss that is not finite is an error."})
    save_total_limit: int | None = field(default=2)
    report_to: None | str | list[str] = field(default="tensorboard")
    restore_callback_states_from_checkpoint: bool = field(default=True)
    remove_unused_columns: bool = field(default=False)
    ddp_find_unused_parameters: bool | None = field(default=False)
    train_sampling_strategy: str = field(
        default="sequential", metadata={"help": "The mix shuffles itself, the same in any number of processes."}
    )

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise RecipeError("the recipe names no output_dir: add `output_dir: runs/NAME` or pass --output_dir")
        self.lr_scheduler_kwargs = mapping("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        self.corpora = [mapping(f"corpora[{i}]", value) for i, value in enumerate(self.corpora)]
        self.probe = None if self.probe is None else mapping("probe", self.probe)
        self._check()
        if not torch.cuda.is_available():
            self.dataloader_pin_memory = False
            self.use_cpu = True  # the library allows bf16, and gloo, without a GPU only when the CPU was asked for
        self.data_seed = self.seed
        super().__post_init__()

    def _check(self) -> None:
        if not self.corpora:
            raise RecipeError("the recipe names no corpora: add `corpora: [{dataset: ..., data_dir: ...}, ...]`")
        shares = [corpus.probability is not None for corpus in self.mix]
        if any(shares) and not all(shares):
            raise RecipeError("corpora: give a probability to all of them, or to none (each window once per epoch)")
        for name, least in (("windows_per_epoch", 1), ("validation_windows", 1), ("reconstructions", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RecipeError(f"{name}={value}: must be at least {least}")
        if self.train_sampling_strategy != "sequential":
            raise RecipeError('train_sampling_strategy: leave it "sequential"; the mix shuffles its windows itself')
        if self.probe is not None:
            ProbeArguments.read(self.probe)

    @property
    def mix(self) -> list[CorpusArguments]:
        """The corpora, checked."""
        return [CorpusArguments.read(value, f"corpora[{i}]") for i, value in enumerate(self.corpora)]
