"""Options of the builders: everything that shapes the data, so that equal options give equal data."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar

import datasets
import numpy as np

from .archives import source_fingerprint
from .errors import ConfigError

FROM_PROTOCOL = "protocol"
"""Value of a field that the protocol decides (`EmgBuilderConfig.PROTOCOL_FIELDS`)."""

ROWS = ("windows", "recordings")
WINDOW_LABELS = ("segment", "repetition", "first_sample", "center_sample")
SAMPLE_TYPES = ("float32", "int16")
_PLACE_FIELDS = ("name", "data_dir", "data_files", "description")  # say where data is or what it is called


@dataclass
class EmgBuilderConfig(datasets.BuilderConfig):
    """Everything that shapes the data of a builder; all of it is part of the cache's name.

    Attributes:
        protocol: which splits (and, where sources disagree, which preprocessing); see the builder.
        subjects, sessions: keep only these; None keeps all.
        channels: positions of the channels to keep, from 0; None keeps all.
        sampling_rate: Hz at which the signal is processed.
        rows: "windows" stores a window per row; "recordings" stores each recording once, cut into consecutive rows,
            from which `ContinuousDataset` cuts windows on the fly.
        chunk_length: samples per row where rows are recordings; None stores a recording in one row.
        sample_type: "float32", or "int16" with a column `scale`, refused where that would lose anything.
        window_length, stride: in samples.
        window_labels: "segment": no window spans a change of label or repetition; "repetition": none spans a change of
            repetition, but the label may change, and is that of the first sample; "first_sample", "center_sample":
            windows on a grid over the whole recording, with the label and repetition of that sample.
        pad_end: zero-pad the last, incomplete window instead of leaving it out.
        target_hop: samples per frame of the regression targets.
        patch_size: samples per token of the model; `window_length` is a multiple.
        filter_rate: Hz at which the filters run, before resampling to `sampling_rate`; None: filters run at
            `sampling_rate`. With `resampling`, "polyphase" or "linear".
        band_pass: edges in Hz, one of them None for a high-pass or low-pass; or None; with `band_pass_order`.
        notch_frequencies: Hz, with `notch_quality`; empty for none.
        filter_mode: "zero_phase" (offline) or "causal" (as in live use).
        gain, soft_limit: the filtered signal x becomes l tanh(gain x / l) with the limit l; None sets no limit.
        normalization: "zscore", "minmax" or "none", per channel over the "recording" or the "window"
            (`normalization_scope`).
        max_gap: longest run of NaN samples that is interpolated instead of refused.
        allow_constant_channels: accept dead channels.
        allow_missing: accept that subjects named by the protocol have no recording.
    """

    version: str | datasets.Version | None = "1.0.0"
    protocol: str = "paper"
    subjects: tuple[str, ...] | None = None
    sessions: tuple[str, ...] | None = None
    channels: tuple[int, ...] | None = None
    sampling_rate: float | None = 200.0
    rows: str = "windows"
    chunk_length: int | None = 10_000
    sample_type: str = "float32"
    window_length: int = 200
    stride: int = 100
    window_labels: str = "segment"
    pad_end: bool = False
    target_hop: int = 1
    patch_size: int = 20
    filter_rate: float | None = None
    resampling: str = "polyphase"
    band_pass: tuple[float | None, float | None] | None = (20.0, 90.0)
    band_pass_order: int = 4
    notch_frequencies: tuple[float, ...] = (50.0,)
    notch_quality: float = 30.0
    filter_mode: str = "zero_phase"
    gain: float = 1.0
    soft_limit: float | None = None
    normalization: str = "zscore"
    normalization_scope: str = "recording"
    max_gap: int = 0
    allow_constant_channels: bool = False
    allow_missing: bool = False

    PROTOCOL_FIELDS: ClassVar[dict[str, dict[str, object]]] = {}
    """For each protocol the values of the fields left to it, e.g. {"paper": {"band_pass": None}}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fields = self.fields_of_protocol()
        for field in dataclasses.fields(self):  # YAML and JSON have lists only; equal settings get equal names
            value = _plain(getattr(self, field.name))
            if value == FROM_PROTOCOL and field.name in fields:
                value = fields[field.name]
            setattr(self, field.name, value)
        if self.channels is not None:
            self.channels = _listed(self.channels)
        for name in ("subjects", "sessions"):
            if getattr(self, name) is not None:
                setattr(self, name, tuple(map(str, _listed(getattr(self, name)))))
            if getattr(self, name) == ():
                raise ConfigError(f"{name}=(): name at least one, or None for all")
        self._check_fields()

    def fields_of_protocol(self) -> dict[str, object]:
        """Values for the fields that are `FROM_PROTOCOL`; empty for an unknown protocol, which the builder refuses."""
        return self.PROTOCOL_FIELDS.get(self.protocol, {})

    def _check_fields(self) -> None:
        for field, allowed in (("rows", ROWS), ("window_labels", WINDOW_LABELS), ("sample_type", SAMPLE_TYPES)):
            if getattr(self, field) not in (*allowed, FROM_PROTOCOL):
                raise ConfigError(f"{field}={getattr(self, field)!r}: unknown; use one of {', '.join(allowed)}")
        for field in dataclasses.fields(self):
            if isinstance(field.default, bool) and not isinstance(getattr(self, field.name), bool):
                raise ConfigError(f"{field.name}={getattr(self, field.name)!r}: must be True or False")
        hop = self.target_hop
        if not isinstance(hop, int) or hop < 1:
            raise ConfigError(f"target_hop={hop!r}: must be a whole number of at least 1")
        for field in ("window_length", "stride", "chunk_length"):
            value = getattr(self, field)
            if isinstance(value, int) and value % hop:
                raise ConfigError(f"{field}={value}: must be a multiple of target_hop={hop}")
        if self.chunk_length is not None and not (isinstance(self.chunk_length, int) and self.chunk_length > 0):
            raise ConfigError(f"chunk_length={self.chunk_length!r}: must be a positive number of samples, or None")
        if self.sample_type == "int16" and self.rows == "windows":
            raise ConfigError('sample_type="int16" stores recordings as they are: it needs rows="recordings"')

    def shaping_fields(self) -> dict:
        """The fields that shape the data, without where it comes from; 200 Hz and 200.0 Hz are the same."""
        fields = {
            f.name: _without_point(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name not in _PLACE_FIELDS
        }
        return fields | {"version": str(self.version)}

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name of the cache folder: readable window and a hash of all settings and of the source files."""
        source = source_fingerprint(self.data_dir) if self.data_dir else ""
        text = json.dumps([self.shaping_fields(), source], sort_keys=True, default=str)
        return f"{self.window_length}x{self.stride}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def option_names(config_class: type[EmgBuilderConfig]) -> list[str]:
    """The options a user may give, in order of definition."""
    return [f.name for f in dataclasses.fields(config_class) if f.name not in (*_PLACE_FIELDS, "version")]


def _plain(value: object) -> object:
    """Any sequence but text as a tuple, numbers of numpy as those of Python."""
    if isinstance(value, list | tuple | range | np.ndarray):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _without_point(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_without_point, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _listed(value: object) -> tuple:
    """A single name or number as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)
