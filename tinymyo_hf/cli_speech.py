"""`tinymyo build-lm`: the language model and the lexicon that speech is decoded with; `tinymyo_hf.cli` registers it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def build_lm(
    context: typer.Context,
    text: Annotated[Path, typer.Argument(help="Text file in UTF-8, a sentence per line, not of the test split.")],
    out: Annotated[Path, typer.Option(help="ARPA file to write.")],
    order: Annotated[int, typer.Option(help="Words in the longest n-grams, 2 to 6.")] = 4,
    lexicon: Annotated[Path | None, typer.Option(help="File to write with the words of the text.")] = None,
    normalize: Annotated[
        bool,
        typer.Option("--normalize", help="Small letters, numbers as words, no punctuation, as speech is recognised."),
    ] = False,
) -> None:
    """Estimate a word language model from text, with the lexicon of its words where asked for."""
    from tinymyo_hf.language_model import build_language_model
    from tinymyo_hf.lexicon import write_lexicon

    _check_files(text, out, lexicon)
    words = set[str]()
    built = build_language_model(_sentences(text, normalize, words, lexicon), out, order)
    ngrams = ", ".join(f"{count:,}" for count in built.ngrams)
    typer.echo(
        f"{out}: a model of order {built.order} ({ngrams} n-grams) from {built.words:,} words in "
        f"{built.sentences:,} sentences"
    )
    if lexicon is not None:
        write_lexicon(sorted(words), lexicon)
        typer.echo(f"{lexicon}: {len(words):,} words")


def _check_files(text: Path, out: Path, lexicon: Path | None) -> None:
    """Raise `LanguageModelError` for names of which one file would overwrite another, or is none."""
    from tinymyo_hf.language_model import LanguageModelError

    taken = {text.expanduser().resolve(): "the text"}
    for option, path in (("out", out), ("lexicon", lexicon)):
        if path is None:
            continue
        place = path.expanduser().resolve()
        if place in taken:
            raise LanguageModelError(f"--{option} {path}: overwrites {taken[place]}; name another file")
        if place.is_dir():
            raise LanguageModelError(f"--{option} {path}: is a folder; name a file in it")
        taken[place] = f"the file of --{option}"


def _sentences(path: Path, normalize: bool, words: set[str], lexicon: Path | None) -> Iterator[str]:
    """The lines of a text; their words are added to `words`.

    Words that `lexicon` cannot hold are refused after the last line, when no language model is written yet; a second
    pass could not read a pipe.
    """
    from tinymyo_hf.language_model import LanguageModelError
    from tinymyo_hf.lexicon import check_words
    from tinymyo_hf.speech_text import normalize_text

    try:
        with open(path, encoding="utf-8-sig") as lines:
            for line in lines:
                sentence = normalize_text(line) if normalize else line
                words.update(sentence.split())
                yield sentence
        if lexicon is not None and words:
            check_words(sorted(words), lexicon)
    except UnicodeDecodeError as error:
        raise LanguageModelError(f"{path}: not a text file in UTF-8 ({error}); convert it") from error
