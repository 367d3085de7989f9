"""Errors of the dataset builders: each names the file, line or field at fault and what to do about it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from datasets.exceptions import DatasetGenerationError

from tinymyo_hf.signal import SignalError


class DataError(DatasetGenerationError, ValueError):
    """Base of every error about a user's data or a builder's configuration.

    It is also a `DatasetGenerationError`, the one kind of error that `datasets` lets through its preparation
    unchanged, so that the message a user reads is ours whether the work ran in this process or in another.
    """


class ConfigError(DataError):
    """A builder option is missing, unknown or impossible."""


class LayoutError(DataError):
    """The files of a corpus are missing, or are not laid out as the corpus documents."""


class ArchiveError(DataError):
    """An archive is missing, empty, corrupt, truncated or unsafe to extract."""


class RecordingError(DataError):
    """The content of one recording cannot be used: malformed cells, unknown labels, NaN, too short."""


class SplitError(DataError):
    """A split names subjects that are absent, or puts one subject in two splits."""


class PreparationError(DataError):
    """Writing a prepared dataset failed: full disk, folder in use, folder holding something else."""


class DownloadError(DataError):
    """A file could not be fetched whole: no connection, not there, wrong checksum, full disk, no public address."""


class PushError(DataError):
    """A prepared folder cannot go to the Hub: no permission, no connection, a name or licence that forbids it."""


@contextlib.contextmanager
def unreadable(what: str, kind: type[DataError]) -> Iterator[None]:
    """What the signal processing refuses, and files that are gone or not to be read, as an error of `kind`."""
    try:
        yield
    except SignalError as error:
        raise kind(str(error)) from error
    except OSError as error:
        file = f" {error.filename}" if error.filename else ""
        raise kind(
            f"{what}: cannot read or write{file} ({error.strerror or error}): check that it is there and that you have "
            "the permission"
        ) from error


@contextlib.contextmanager
def disk_errors(partial: Path) -> Iterator[None]:
    """A full disk, a missing permission and the like, as an error that says what is kept and how to go on."""
    try:
        yield
    except OSError as error:
        raise PreparationError(
            f"cannot write to {partial}: {error.strerror or error}. What is finished is kept there: free "
            "some space and run the same command again, or choose another folder"
        ) from error
