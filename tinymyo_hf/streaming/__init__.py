"""Live recognition: sources of a running signal, recognizers of what is in it, and sessions that join the two."""

from tinymyo_hf.streaming.checkpoints import load_recognizer
from tinymyo_hf.streaming.chunks import Break, Chunk, Event, StreamError
from tinymyo_hf.streaming.filters import HysteresisFilter, MajorityFilter
from tinymyo_hf.streaming.recognizers import EventRecognizer, GestureRecognizer, Recognizer
from tinymyo_hf.streaming.session import LiveSession
from tinymyo_hf.streaming.sources import ArraySource, Source, StdinSource, open_file
from tinymyo_hf.streaming.text import TextRecognizer

__all__ = [
    "ArraySource",
    "Break",
    "Chunk",
    "Event",
    "EventRecognizer",
    "GestureRecognizer",
    "HysteresisFilter",
    "LiveSession",
    "MajorityFilter",
    "Recognizer",
    "Source",
    "StdinSource",
    "StreamError",
    "TextRecognizer",
    "load_recognizer",
    "open_file",
]
