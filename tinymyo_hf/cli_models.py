"""The commands about model files: what one is, and published ones in this format; `tinymyo_hf.cli` registers them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

TINYMYO, SEMG, BIOMOE, HIFIGAN = "a TinyMyo", "an sEMG transformer", "a Tiny-BioMoE", "a HiFi-GAN"


class Positions(StrEnum):
    rope = "rope"
    none = "none"


def info(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="Folder or Hub id of a checkpoint, or a preset (tinymyo-base, semg-transformer-tiny, "
            "semg-transformer-256x4, tiny-biomoe, ...)."
        ),
    ],
    samples: Annotated[int | None, typer.Option(min=1, help="Length of one input; by default its window.")] = None,
) -> None:
    """Tell what a model takes, what it predicts, its parameters and its multiply-accumulate operations."""
    from tinymyo_hf.model_info import model_info

    typer.echo(model_info(model, samples).report())


def convert(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="A released .safetensors, .ckpt or .pth file, or a HiFi-GAN generator.")
    ],
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
    normalizers: Annotated[
        Path | None,
        typer.Option(help="TinyMyo for synthesis: normalizers.pkl of the released code, which its spectra need."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="HiFi-GAN: its JSON configuration; by default config.json beside SOURCE.")
    ] = None,
) -> None:
    """Turn a published checkpoint, of TinyMyo, an sEMG transformer, Tiny-BioMoE or the vocoder HiFi-GAN, into a folder
    that `from_pretrained` loads."""
    of_tinymyo = {
        "position_embedding": position_embedding,
        "num_channels": num_channels,
        "target_length": target_length,
        "measure": measure,
        "sampling_rate": sampling_rate,
        "normalizers": normalizers,
    }
    heads = {} if num_attention_heads is None else {"num_attention_heads": num_attention_heads}
    family = _family_of(source)
    options_of = {
        TINYMYO: of_tinymyo | heads,
        SEMG: {"pre_layer_norm": pre_layer_norm or None} | heads,
        BIOMOE: {},
        HIFIGAN: {"config": config},
    }
    given = [name for options in options_of.values() for name, value in options.items() if value is not None]
    if wrong := [f"--{name.replace('_', '-')}" for name in dict.fromkeys(given) if name not in options_of[family]]:
        from tinymyo_hf.tinymyo.released_weights import ConversionError

        raise ConversionError(f"{source} is {family} checkpoint, which {', '.join(wrong)} is not for; leave it out")
    if family == TINYMYO:
        model = _convert_tinymyo(source, out, **of_tinymyo, **heads)
    elif family == SEMG:
        model = _convert_semg(source, out, do_stable_layer_norm=pre_layer_norm, **heads)
    elif family == BIOMOE:
        model = _convert_tiny_biomoe(source, out)
    else:
        from tinymyo_hf.hifigan import convert_hifigan

        model = convert_hifigan(source, config, out)
    typer.echo(f"{type(model).__name__} with {model.num_parameters():,} parameters written to {out}")


def _family_of(source: Path) -> str:
    """What the weights in a file are of, by their names; `ConversionError` if it cannot be read."""
    from tinymyo_hf.hifigan import is_hifigan_checkpoint
    from tinymyo_hf.semg_transformer.convert_semg_transformer_checkpoint import is_semg_checkpoint
    from tinymyo_hf.tiny_biomoe.convert_tiny_biomoe_checkpoint import is_tiny_biomoe_checkpoint

    checks = {HIFIGAN: is_hifigan_checkpoint, SEMG: is_semg_checkpoint, BIOMOE: is_tiny_biomoe_checkpoint}
    return next((family for family, is_of_family in checks.items() if is_of_family(source)), TINYMYO)


def _convert_tiny_biomoe(source: Path, out: Path) -> Any:
    from tinymyo_hf.tiny_biomoe.convert_tiny_biomoe_checkpoint import convert_tiny_biomoe_checkpoint

    model, heads = convert_tiny_biomoe_checkpoint(source, out)
    if heads:
        typer.echo(f"left out, as weights of heads: {', '.join(heads)}")
    return model


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
    model = convert_checkpoint(source, out, position_embedding_type=positions, **options)
    if type(model).__name__ == "TinyMyoForSpeechSynthesis" and options["normalizers"] is None:
        typer.echo(
            "its spectra are standardised as in training, which vocoders do not understand: convert it with "
            "--normalizers normalizers.pkl, the file of the code it was trained with"
        )
    return model
