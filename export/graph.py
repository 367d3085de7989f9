"""From a model of the family to its ONNX graph in float32: traced, cleaned, the same bytes for the same weights."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from export.errors import ExportError
from export.extras import need
from export.image_graph import (
    AXES_OF_IMAGES,
    check_axes_of_images,
    is_of_images,
    prepared_for_images,
    sample_images,
    usual_axes_of_images,
)

if TYPE_CHECKING:
    import onnx
    import torch
    from transformers import PreTrainedModel
    from transformers.exporters import ExportQuantizer

Dimension = Literal["batch", "time", "channels", "images"]
OPSET = 20
OPSETS = range(18, 24)
_AXES = ("batch", "channels", "time")
SUFFIX_OF_HEAD = {
    "ForSequenceClassification": "logits",
    "ForRegression": "logits",
    "ForFrameClassification": "logits",
    "ForCTC": "logits",
    "ForSpeechSynthesis": "spectrogram",
    "ForPreTraining": "reconstruction",
    "Model": "last_hidden_state",
}
"""First output of the graph by the end of the model's class name."""
_WEIGHTED = ("MatMul", "Gemm", "Conv")


def trace(
    model: PreTrainedModel,
    dynamic: Sequence[Dimension] | None = None,
    opset: int = OPSET,
    length: int | None = None,
    quantizer: ExportQuantizer | None = None,
) -> onnx.ModelProto:
    """The ONNX graph of a model in float32.

    Input `input_values` (batch, channels, time), of `TinyMyoForPreTraining` also `bool_masked_pos` (batch, tokens), of
    a Tiny-BioMoE `pixel_values` (see `export.image_graph`); outputs as `output_names` says. Weights keep the names of
    the model's parameters, and nodes with weights are named after their modules ("tinymyo.layers.0.attention.qkv").
    Rotated queries and keys have their rows reordered (halves instead of pairs), which changes no score.

    Args:
        model: any model of the family; it is not changed.
        dynamic: axes of the input that may differ from call to call, by default those of `usual_axes`. Channels may
            where the model takes any number of them: patches as stem, and no head that concatenates channels; images
            where a Tiny-BioMoE takes their mean.
        opset: of the ONNX operators, 18 to 23.
        length: samples of the window where "time" is not dynamic.
        quantizer: of the library's exporters, to quantize what is traced before it becomes ONNX.

    Raises:
        ExportError: a model of another family, axes that cannot be dynamic, or an opset that is not supported.
        ImportError: onnx or onnxscript is missing; the message names the extra.
    """
    need("onnx", "onnxscript")
    dynamic = usual_axes(model) if dynamic is None else dynamic
    _check(model, dynamic, opset, length)
    prepared = prepare(model)
    inputs = sample_inputs(prepared, dynamic, length)
    axes = AXES_OF_IMAGES if is_of_images(model.config) else _AXES
    proto = _export(prepared, inputs, _dynamic_shapes(inputs, dynamic, axes), opset, quantizer)
    _keep_outputs(proto, output_names(model))
    for given, name in zip(proto.graph.input, inputs, strict=True):
        _rename(proto, given.name, name)  # the exporter calls what is an output as well something else
        given.name = name
    _name_by_modules(proto)
    _name_dimensions(proto, axes)
    _strip(proto)
    return _checked(proto)


def usual_axes(model: PreTrainedModel) -> tuple[Dimension, ...]:
    """Axes of a model's input that may differ from call to call, where nobody says which."""
    return usual_axes_of_images(model) if is_of_images(model.config) else ("batch", "time")


def output_names(model: PreTrainedModel) -> list[str]:
    """Of the graph of a model, the first one being what it predicts.

    Raises:
        ExportError: a model of another family.
    """
    name = type(model).__name__
    if name == "TinyBioMoEModel":
        return ["pooler_output"]
    for suffix, output in SUFFIX_OF_HEAD.items():
        if name.endswith(suffix):
            return [output, "phoneme_logits"] if output == "spectrogram" else [output]
    raise ExportError(f"model: a {name}, of which no export is known; use one of this package")


def _check(model: PreTrainedModel, dynamic: Sequence[str], opset: int, length: int | None) -> None:
    config = model.config
    output_names(model)
    if config.model_type not in ("tinymyo", "semg_transformer", "tiny_biomoe"):
        raise ExportError(
            f"model: of the type {config.model_type!r}, of which no export is known; use one of this package"
        )
    if unknown := sorted(set(dynamic) - set(get_args(Dimension))):
        raise ExportError(f"dynamic={unknown[0]!r}: unknown; use some of {', '.join(get_args(Dimension))}")
    if opset not in OPSETS:
        raise ExportError(f"opset={opset}: use one of {OPSETS[0]} to {OPSETS[-1]}")
    if is_of_images(config):
        check_axes_of_images(model, dynamic)
        return
    if "images" in dynamic:
        raise ExportError("dynamic='images': for models of images; leave it out")
    if "channels" in dynamic and not _takes_any_channels(model):
        raise ExportError(
            f"dynamic='channels': this {type(model).__name__} takes {config.num_channels} channels; leave it out"
        )
    if "time" not in dynamic and length is None:
        raise ExportError("length: say how many samples the windows have, or make 'time' dynamic")


def _takes_any_channels(model: PreTrainedModel) -> bool:
    config = model.config
    if config.model_type != "tinymyo" or config.stem != "patches":
        return False
    headless = type(model).__name__.endswith(("Model", "ForPreTraining"))
    return headless or config.channel_fusion == "mean"


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in float32 whose graph is lean."""
    import torch

    prepared = copy.deepcopy(model).to("cpu", torch.float32).eval()
    if is_of_images(model.config):
        return prepared_for_images(prepared)
    # Its graph is what runtimes know how to fuse.
    prepared.set_attn_implementation("eager")
    for module in prepared.modules():
        if type(module).__name__ == "TinyMyoAttention" and prepared.config.position_embedding_type == "rope":
            _rotate_halves(module)
        elif type(module).__name__ == "SEMGTransformerPositionalConv":
            _multiply_out(module)
        elif type(module).__name__ == "TinyMyoResidualBlock":
            _fold_norms(module)
    return prepared


def _rotate_halves(attention: Any) -> None:
    """Reorder the rows of queries and keys: the first of each rotated pair before the second ones."""
    import torch

    width = attention.head_dim
    order = torch.cat((torch.arange(0, width, 2), torch.arange(1, width, 2)))
    with torch.no_grad():
        for parameter in (attention.qkv.weight, attention.qkv.bias):
            heads = parameter.unflatten(0, (3, attention.num_heads, width))
            heads[:2] = heads[:2, :, order].clone()
    attention.rotates_halves = True


def _multiply_out(conv: Any) -> None:
    """Magnitudes and directions of the weight become one constant, which can be quantized."""
    from torch import nn

    weight = conv.weight.detach().clone()
    conv.forward = lambda hidden_states: nn.functional.conv1d(
        nn.functional.pad(hidden_states, conv.padding), weight, conv.bias, groups=conv.groups
    )


def _fold_norms(block: Any) -> None:
    """Batch norms become part of the convolutions before them, as by the exporter, but under the names of those."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for conv, norm in (("conv1", "norm1"), ("conv2", "norm2"), ("shortcut", "shortcut_norm")):
        setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
        getattr(block, norm).forward = lambda hidden_states, mask=None: hidden_states


def sample_inputs(model: PreTrainedModel, dynamic: Sequence[str], length: int | None) -> dict[str, torch.Tensor]:
    """Inputs to trace with; no axis that is dynamic is 1 long, which would be taken as fixed."""
    import torch

    if is_of_images(model.config):
        return sample_images(model, dynamic)
    config = model.config
    channels = max(config.num_channels, 2) if "channels" in dynamic else config.num_channels
    samples = length if length is not None else _sample_length(config)
    batch = 2 if "batch" in dynamic else 1
    inputs = {"input_values": torch.linspace(-1, 1, batch * channels * samples).reshape(batch, channels, samples)}
    if type(model).__name__.endswith("ForPreTraining"):
        inputs["bool_masked_pos"] = torch.zeros(batch, channels * samples // config.patch_size, dtype=torch.bool)
    return inputs


def _sample_length(config: Any) -> int:
    if config.model_type == "semg_transformer":
        return config.receptive_field + 23 * config.hop_length
    if config.stem == "convolution":
        return config.stem_kernel_size + 23 * config.stem_stride
    return 24 * config.frame_stride


def _dynamic_shapes(inputs: dict[str, Any], dynamic: Sequence[str], axes: Sequence[str]) -> dict[str, dict[int, Any]]:
    from torch.export import Dim

    shapes = {next(iter(inputs)): {axes.index(name): Dim.DYNAMIC for name in dynamic}}
    if "bool_masked_pos" in inputs:
        shapes["bool_masked_pos"] = {0: Dim.DYNAMIC} if "batch" in dynamic else {}
        if {"time", "channels"} & set(dynamic):
            shapes["bool_masked_pos"][1] = Dim.DYNAMIC
    return shapes


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """The exporters report their progress on stdout, and their own deprecations."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)


def _export(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    shapes: dict[str, Any],
    opset: int,
    quantizer: ExportQuantizer | None,
) -> onnx.ModelProto:
    import onnx_ir
    from transformers.exporters import OnnxConfig, OnnxExporter

    with silenced():
        config = OnnxConfig(dynamic_shapes=shapes, opset_version=opset, quantizer=quantizer)
        exported = OnnxExporter().export(model, inputs, config)
        return onnx_ir.to_proto(exported.program)


def _keep_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    """Only the outputs of these names, in this order, and what they are computed from."""
    outputs = {output.name: copy.deepcopy(output) for output in proto.graph.output}
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[name] for name in names)
    needed, kept = set(names), []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    weights = [weight for weight in proto.graph.initializer if weight.name in needed]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(kept)
    proto.graph.initializer.extend(weights)


def _name_by_modules(proto: onnx.ModelProto) -> None:
    """Nodes with weights get the names of their modules, other nodes their kind and number, so that names depend on
    nothing but the graph; folded weights get the names of the parameters they come from."""
    weights = {weight.name: weight for weight in proto.graph.initializer}
    taken: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        module = _module_of(node)
        if node.op_type in _WEIGHTED and node.input[1] in weights and module and module not in taken:
            node.name = module
            taken.add(module)
            _rename(proto, node.input[1], f"{module}.weight")
        else:
            node.name = f"{node.op_type}_{number}"


def _module_of(node: onnx.NodeProto) -> str:
    """Of the module that called the operation; the exporter lists those around it, innermost last but for itself."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = entry.value.strip("[]").replace("'", "").split(", ")
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _rename(proto: onnx.ModelProto, old: str, new: str) -> None:
    for weight in proto.graph.initializer:
        if weight.name == old:
            weight.name = new
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def _name_dimensions(proto: onnx.ModelProto, axes: Sequence[str]) -> None:
    """Symbols of the tracer -> names of axes, and "frames" (tokens in all) for what is made of them."""
    names = {}
    for axis, dim in zip(axes, proto.graph.input[0].type.tensor_type.shape.dim, strict=False):  # the rest is fixed
        if dim.dim_param:
            names[dim.dim_param] = axis
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, "frames")


def _strip(proto: onnx.ModelProto) -> None:
    """Without what tells of the machine it was traced on, or goes stale when the graph is rewritten."""
    del proto.graph.value_info[:], proto.graph.metadata_props[:], proto.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""
    proto.graph.name = "main_graph"
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""


def _checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    return proto
