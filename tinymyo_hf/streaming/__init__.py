"""Live recognition: sources of a running signal, recognizers of what is in it, and sessions that join the two."""

from tinymyo_hf.streaming.chunks import Break, Chunk, Event, StreamError
from tinymyo_hf.streaming.filters import HysteresisFilter, MajorityFilter
from tinymyo_hf.streaming.recognizers import EventRecognizer, GestureRecognizer, Recognizer
from tinymyo_hf.streaming.session import LiveSession
from tinymyo_hf.streaming.sources import ArraySource, Source, StdinSource, open_file

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
    "open_file",
]
