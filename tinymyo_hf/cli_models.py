"""The commands about model files: what one is, and published ones in this format; `tinymyo_hf.cli` registers them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Positions(StrEnum):
    rope = "rope"
    none = "none"


def info(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="Folder or Hub id of a checkpoint, or a preset (tinymyo-base, semg-transformer-tiny, "
            "semg-transformer-256x4, ...)."
        ),
    ],
    samples: Annotated[int | None, typer.Option(min=1, help="Length of one input; by default its window.")] = None,
) -> None:
    """Tell what a model takes, what it predicts, its parameters and its multiply-accumulate operations."""
    from tinymyo_hf.model_info import model_info

    typer.echo(model_info(model, samples).report())


def convert(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A released .safetensors or .ckpt file.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    num_attention_heads: Annotated[
        int | None, typer.Option(min=1, help="Not told by the weights; by default those of the paper.")
    ] = None,
    position_embedding: Annotated[
        Positions | None,
        typer.Option(help="TinyMyo: rope (default) as in the paper, none as the released code behaves."),
    ] = None,
    num_channels: Annotated[int | None, typer.Option(min=1, help="TinyMyo: where the weights do not tell.")] = None,
    target_length: Annotated[
        int | None, typer.Option(min=1, help="TinyMyo: frames a regression predicts per window.")
    ] = None,
    measure: Annotated[
        Path | None,
        typer.Option(help="TinyMyo: a recording; print the reconstruction loss under both kinds of positions."),
    ] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Hz of that recording, if it does not state it.")] = None,
    pre_layer_norm: Annotated[
        bool, typer.Option("--pre-layer-norm", help="sEMG transformers: norms before the sublayers, not after them.")
    ] = False,
) -> None:
    """Turn a published checkpoint, of TinyMyo or of an sEMG transformer, into a folder that `from_pretrained` loads."""
    from tinymyo_hf.semg_transformer.convert_semg_transformer_checkpoint import is_semg_checkpoint
    from tinymyo_hf.tinymyo.released_weights import ConversionError

    of_tinymyo = {
        "position_embedding": position_embedding,
        "num_channels": num_channels,
        "target_length": target_length,
        "measure": measure,
        "sampling_rate": sampling_rate,
    }
    given = [f"--{name.replace('_', '-')}" for name, value in of_tinymyo.items() if value is not None]
    is_semg = is_semg_checkpoint(source)
    if wrong := given if is_semg else ["--pre-layer-norm"] * pre_layer_norm:
        family = "an sEMG transformer" if is_semg else "a TinyMyo"
        raise ConversionError(f"{source} is {family} checkpoint, which {', '.join(wrong)} is not for; leave it out")
    heads = {} if num_attention_heads is None else {"num_attention_heads": num_attention_heads}
    model = (
        _convert_semg(source, out, do_stable_layer_norm=pre_layer_norm, **heads)
        if is_semg
        else _convert_tinymyo(source, out, **of_tinymyo, **heads)
    )
    typer.echo(f"{type(model).__name__} with {model.num_parameters():,} parameters written to {out}")


def _convert_semg(source: Path, out: Path, **options: Any) -> Any:
    from tinymyo_hf.semg_transformer.convert_semg_transformer_checkpoint import convert_semg_checkpoint

    model = convert_semg_checkpoint(source, out, **options)
    place = "before" if options["do_stable_layer_norm"] else "after"
    typer.echo(
        f"taken as {model.config.num_attention_heads} heads with norms {place} the sublayers, which the weights do not "
        "tell: compare its error rate with the published one"
    )
    return model


def _convert_tinymyo(
    source: Path,
    out: Path,
    position_embedding: Positions | None,
    measure: Path | None,
    sampling_rate: float | None,
    **options: Any,
) -> Any:
    from tinymyo_hf.tinymyo.convert_tinymyo_checkpoint import convert_checkpoint, measure_position_embeddings

    positions = None if position_embedding is None else position_embedding.value
    if measure is not None:
        heads = {name: value for name, value in options.items() if name == "num_attention_heads"}
        losses = measure_position_embeddings(source, measure, sampling_rate=sampling_rate, **heads)
        for kind, loss in losses.items():
            typer.echo(f"masked reconstruction loss with position_embedding_type={kind}: {loss:.5f}")
        typer.echo(f"lower with {min(losses, key=losses.get)}; converting with {positions or 'rope'}")
    return convert_checkpoint(source, out, position_embedding_type=positions, **options)
