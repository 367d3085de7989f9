"""The `tinymyo` command. Commands import what they need when they run, so that help appears at once.

What a user can put right (a missing file, a wrong field, data that do not fit) is reported in one line, with exit code
2; `tinymyo --debug ...` shows where it arose.
"""

import functools
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from tinymyo_hf import cli_export
from tinymyo_hf.cli_experiments import personalize, reproduce, search
from tinymyo_hf.cli_gap9 import gap9
from tinymyo_hf.cli_models import convert, info
from tinymyo_hf.cli_simulate import simulate
from tinymyo_hf.cli_speech import build_lm
from tinymyo_hf.cli_stream import stream

app = typer.Typer(
    help="Surface-EMG models: inspect and prepare recordings, train, evaluate, predict, run live.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"token_normalize_func": lambda option: option.replace("_", "-")},  # --data_dir is --data-dir
)
export_app = typer.Typer(
    help="Write a model in a form that needs no PyTorch.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(export_app, name="export")
# `--field value` pairs that are not options of the command itself: fields of a recipe or of a builder.
FIELDS = {"allow_extra_args": True, "ignore_unknown_options": True}
# What installs a package that a command misses; of the others "train".
EXTRAS = {
    "executorch": "executorch",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "search",
    "peft": "lora",
    "pylsl": "lsl",
    "soundfile": "speech",
    "torchao": "pt2e",
}
OUR_PACKAGES = ("tinymyo_hf", "dataset_builders", "trainers", "export")
TABLE_ROWS = 20

DataDir = Annotated[str | None, typer.Option(help="Folder, archive or folder of archives with the raw files.")]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch missing raw files from the official source, into DATA_DIR or a cache.")
]
NumProc = Annotated[int | None, typer.Option(min=1, help="Processes that prepare recordings.")]
SamplingRate = Annotated[float | None, typer.Option(help="Hz, where the file does not state it.")]
Channels = Annotated[str | None, typer.Option(help="Channels to use, by name or position: 0,1,2.")]
Key = Annotated[str | None, typer.Option(help="Variable to read from a file of several arrays.")]
Layout = Annotated[str | None, typer.Option(help="channels_time or time_channels, for arrays.")]
RawType = Annotated[str | None, typer.Option(help="Numbers in a .dat, .bin or .raw file: int16, float32, ...")]
RawChannels = Annotated[int | None, typer.Option(min=1, help="Numbers per sample in such a file.")]


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


@app.callback()
def main(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    context.obj = {"debug": debug}


class _CorpusCommand(TyperCommand):
    """A command whose help lists the corpora, which are looked up only when that help is asked for."""

    def format_help(self, context: typer.Context, formatter: Any) -> None:
        from dataset_builders import BUILDERS

        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.help = f"{parameter.help}: {', '.join(BUILDERS)}."
        super().format_help(context, formatter)


def _command(of: typer.Typer = app, loads_library: bool = True, **options: Any) -> Callable:
    """Register a command whose user errors become one line and exit code 2.

    Args:
        of: the command that it is one of.
        loads_library: importing the package leaves registering with transformers to us, to keep --help fast; False
            leaves it to the command.
        options: of typer's.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(context: typer.Context, *args: Any, **kwargs: Any) -> None:
            import tinymyo_hf

            try:
                if loads_library:
                    tinymyo_hf.register()
                function(context, *args, **kwargs)
            except Exception as error:
                message = _explain(error)
                if message is None or context.obj["debug"]:
                    raise
                typer.echo(f"tinymyo: {message}", err=True)
                raise typer.Exit(2) from None

        return of.command(**options)(run)

    return decorate


def _explain(error: Exception) -> str | None:
    """One line for an error that a user can put right; None for a defect of the program."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in OUR_PACKAGES:
        package = error.name.split(".")[0]
        extra = EXTRAS.get(package, "train")
        return f"this command needs the package {package}: pip install 'tinymyo-hf[{extra}]'"
    if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough; the caller of this knows it
        return None
    if isinstance(error, OSError) and error.strerror:  # from the system: no such file, no permission, disk full
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, FileNotFoundError):  # from a library
        return str(error)
    if isinstance(error, ValueError) and type(error).__module__.split(".")[0] in OUR_PACKAGES:
        return " ".join(str(error).split())
    return None


@_command(context_settings=FIELDS)
def demo(
    context: typer.Context,
    data_dir: Annotated[str | None, typer.Option(help="UCI EMG, folder or archive; without it synthetic.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the trained model and its report.")] = Path("runs/demo"),
    num_proc: NumProc = None,
) -> None:
    """Train TinyMyo on the embedded corpus, evaluate it on unseen subjects, and predict a recording (minutes).

    Further `--field value` pairs are fields of the recipe, as in `tinymyo train`.
    """
    from trainers.demo import run_demo

    run_demo(data_dir, output, overrides=context.args, num_proc=num_proc)


@_command(cls=_CorpusCommand, context_settings=FIELDS)
def prepare(
    context: typer.Context,
    builder: Annotated[str, typer.Argument(metavar="CORPUS", help="One of the corpora")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    data_dir: DataDir = None,
    download: Download = False,
    num_proc: NumProc = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another preparation in OUT.")] = False,
) -> None:
    """Filter and cut the recordings of a corpus into a Hub-ready folder of parquet files.

    Further `--field value` pairs are options of the corpus: `--window_length 1000 --stride 250`. What messages and
    guides write as `allow_missing=True` is `--allow_missing true` here. A wrong option lists those there are.
    """
    from dataset_builders.hub import prepare as prepare_folder

    fields = _builder_fields(context.args)
    folder = prepare_folder(builder, data_dir, out, num_proc, overwrite=overwrite, download=download, **fields)
    typer.echo(f"{folder} is ready: load_dataset({str(folder)!r}), or `dataset: {folder}` in a recipe")


@_command(cls=_CorpusCommand, context_settings=FIELDS)
def inspect(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A recording, a folder made by prepare, or one of the corpora")],
    data_dir: DataDir = None,
    download: Download = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many recordings, spread over the corpus.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the first recording read into this .png file.")] = None,
    sampling_rate: SamplingRate = None,
    label_column: Annotated[str | None, typer.Option(help="Column of a recording that holds its labels.")] = None,
    channels: Channels = None,
    key: Key = None,
    layout: Layout = None,
    raw_type: RawType = None,
    raw_channels: RawChannels = None,
) -> None:
    """Tell what is in a corpus or a file: who, what, how long, and what is wrong with the signals.

    Further `--field value` pairs are options of the corpus, as for `tinymyo prepare`.
    """
    from dataset_builders.base import BUILDERS, ConfigError, make_builder
    from dataset_builders.inspection import inspect_corpus, inspect_file, inspect_prepared, is_prepared

    fields = _builder_fields(context.args)
    label = _channel_list(label_column)
    options = {
        "sampling_rate": sampling_rate,
        "label_column": label[0] if label else None,
        "channels": _channel_list(channels),
        "key": key,
        "layout": layout,
        "raw_type": raw_type,
        "raw_channels": raw_channels,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if target in BUILDERS:
        builder = make_builder(target, data_dir, download=download, **fields | options)
        survey = inspect_corpus(builder, limit)
    elif fields:
        raise ConfigError(f"{', '.join(fields)}: fields are for one of the corpora: {', '.join(BUILDERS)}")
    elif is_prepared(target):
        if options:
            raise ConfigError(f"{', '.join(options)}: {target} has been prepared, which has settled that; leave it out")
        survey = inspect_prepared(target, limit)
    elif Path(target).is_dir():
        corpus = "emg_folder" if (Path(target) / "metadata.csv").is_file() else "uci_emg"
        raise ConfigError(
            f"{target} is a folder of raw files: name its corpus, as in `tinymyo inspect {corpus} --data-dir {target}`"
        )
    elif not Path(target).exists():
        raise ConfigError(f"{target}: no such file or folder, nor one of the corpora: {', '.join(BUILDERS)}")
    else:
        survey = inspect_file(target, **options)
    typer.echo(survey.report())
    if plot is not None:
        from dataset_builders.inspection_plot import plot_recording

        name, signal = survey.first
        plot_recording(signal, plot, name, survey.class_names)
        typer.echo(f"\nThe signals of {name} are drawn in {plot}")


@_command()
def push(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder made by prepare.")],
    repo_id: Annotated[str, typer.Argument(help="The dataset repository: user/name or organisation/name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload; without it nothing is sent.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see the repository.")] = False,
) -> None:
    """Check a prepared folder and show what would go to the Hub; with --yes, upload it (privately)."""
    from dataset_builders.push import plan_push
    from dataset_builders.push import push as upload

    plan = plan_push(folder, repo_id, public)
    typer.echo(plan.report())
    if yes:
        typer.echo(f"\nUploaded to {upload(plan)}")
    else:
        typer.echo("\nNothing has been sent: give the same command with --yes to upload.")


@_command(context_settings=FIELDS)
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes with the package.")],
) -> None:
    """Train as a recipe says; `--field value` replaces a field, `--mapping.key value` an entry of one.

    An interrupted run continues when the same command is given again.
    """
    from trainers.run import run_recipe

    results = run_recipe(recipe, context.args, command=shlex.join(["tinymyo", "train", recipe, *context.args]))
    if results:
        typer.echo(f"\n{results['summary']}")


for command in (personalize, reproduce, search, stream):
    _command(context_settings=FIELDS)(command)


@_command(context_settings=FIELDS)
def evaluate(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub id of a trained model.")],
    dataset: Annotated[str, typer.Option(help="A builder (uci_emg, ...) or a prepared folder.")],
    data_dir: DataDir = None,
    split: Split = Split.test,
    output: Annotated[Path, typer.Option(help="Folder for the report and the plots.")] = Path("evaluation"),
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows at once.")] = None,
    num_proc: NumProc = None,
    baselines: Annotated[bool, typer.Option(help="Also fit the classical models on the training split.")] = True,
) -> None:
    """Score a checkpoint on a split: metrics, a row per subject, plots.

    Further `--field value` pairs are fields of the builder that the checkpoint's preprocessing does not fix.
    """
    from trainers.evaluate import evaluate_checkpoint, render_report

    results = evaluate_checkpoint(
        checkpoint,
        dataset,
        output,
        data_dir=data_dir,
        split=split.value,
        batch_size=batch_size,
        num_proc=num_proc,
        dataset_config=_builder_fields(context.args),
        baselines=baselines,
    )
    typer.echo(render_report(results).split("\n![")[0])
    typer.echo(f"results.json, report.md and plots are in {output}")


@_command(loads_library=False)
def predict(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub id of a trained model, or an ONNX export.")],
    file: Annotated[
        Path, typer.Argument(help="A recording: csv, tsv, txt, parquet, npy, npz, mat, hdf5, dat, bin or raw.")
    ],
    sampling_rate: SamplingRate = None,
    output: Annotated[
        Path | None, typer.Option(help="Write all of it to this .csv or .json file; trajectories also to .npy.")
    ] = None,
    channels: Channels = None,
    key: Key = None,
    layout: Layout = None,
    raw_type: RawType = None,
    raw_channels: RawChannels = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Samples between windows.")] = None,
    window_length: Annotated[
        int | None, typer.Option(min=1, help="Samples of a window; of typing for exports.")
    ] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Convert recordings at another rate.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows at once.")] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Text: greedy (default), beam, or words (speech, with a lexicon).")
    ] = None,
    lm: Annotated[
        Path | None,
        typer.Option(help="Text: language model, of characters for beam, of words for words (lm.arpa of CHECKPOINT)."),
    ] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="Text: words that may be written, one a line (lexicon.txt of CHECKPOINT).")
    ] = None,
    wav: Annotated[Path | None, typer.Option(help="Audio: write it to this .wav file.")] = None,
    vocoder: Annotated[
        str | None, typer.Option(help="Audio: folder or Hub id of a HiFi-GAN; without it Griffin-Lim.")
    ] = None,
    before: Annotated[Path | None, typer.Option(help="Speech: the utterance before, to settle the filters.")] = None,
    after: Annotated[Path | None, typer.Option(help="Speech: the utterance after.")] = None,
) -> None:
    """Predict a recording: labels of windows, a trajectory, events, text or audio, as the checkpoint was trained."""
    from tinymyo_hf.predictions import predict_file

    read_options = {
        "channels": _channel_list(channels),
        "key": key,
        "layout": layout,
        "raw_type": raw_type,
        "raw_channels": raw_channels,
    }
    prediction = predict_file(
        checkpoint,
        file,
        output,
        sampling_rate=sampling_rate,
        stride=stride,
        window_length=window_length,
        on_rate_mismatch="resample" if resample else None,
        batch_size=batch_size,
        read_options={name: value for name, value in read_options.items() if value is not None},
        decoder=decoder,
        lm_path=lm,
        lexicon_path=lexicon,
        wav=wav,
        vocoder=vocoder,
        before=before,
        after=after,
    )
    typer.echo(prediction.table(TABLE_ROWS))
    if wav is not None:
        typer.echo(f"{prediction.write_wav(wav)} written to {wav}")
    if output is not None:
        typer.echo(f"{prediction.write(output)} written to {output}")


for without_fields in (info, convert, simulate, build_lm):
    _command()(without_fields)
for export_command in (cli_export.executorch, gap9, cli_export.onnx):
    _command(export_app)(export_command)


def _builder_fields(arguments: list[str]) -> dict[str, Any]:
    """`["--window_length", "1000", "--protocol=reference"]` -> fields with their YAML types."""
    from trainers.parsing import parse_fields

    return parse_fields(arguments)


def _channel_list(text: str | None) -> list[int | str] | None:
    if text is None:
        return None
    return [int(part) if part.strip().lstrip("-").isdigit() else part.strip() for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(app())
