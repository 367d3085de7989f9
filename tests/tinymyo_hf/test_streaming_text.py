"""Live typing: keys and times as for whole recordings, whatever the pieces and the breaks."""

import numpy as np
import pytest
import torch

from tinymyo_hf import (
    EmgCharacterTokenizer,
    SEMGTransformerConfig,
    SEMGTransformerFeatureExtractor,
    SEMGTransformerForCTC,
)
from tinymyo_hf.charset import apply_keystrokes
from tinymyo_hf.decoding_timed import timed_decoder
from tinymyo_hf.semg_transformer.streaming import SEMGTransformerStream
from tinymyo_hf.streaming import Chunk, LiveSession, Source, StreamError, TextRecognizer
from tinymyo_hf.tokenization import CharsetError

TINY = {
    "num_channels": 4, "conv_dim": [8, 8, 8], "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
TOKENIZER = EmgCharacterTokenizer()


def noise(samples=3000, seed=0):
    return np.random.default_rng(seed).normal(size=(4, samples)).astype(np.float32)


def tiny_model(**fields):
    torch.manual_seed(0)
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**TINY | fields)).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=2)
    return model


def recognizer_of(model, decoder="greedy", **options):
    extractor = SEMGTransformerFeatureExtractor(num_channels=4, bands=(2, 2), rotation=(1, 0))
    return TextRecognizer(model, extractor, TOKENIZER, timed_decoder(TOKENIZER, decoder), **options)


def push_all(recognizer, x, sizes):
    events, first, i = [], 0, 0
    while first < x.shape[1]:
        events += recognizer.push(x[:, first : first + sizes[i % len(sizes)]])
        first, i = first + sizes[i % len(sizes)], i + 1
    return events


def expected_events(logits, decoder, start=0):
    one = timed_decoder(TOKENIZER, decoder)()
    ids = one.push(logits) + one.finish()
    return [{"type": "key", "time": (start + 20 * frame + 40) / 2000, "key": TOKENIZER.decode([i])} for i, frame in ids]


def assert_same(found, expected):
    assert [event["key"] for event in found] == [event["key"] for event in expected]
    assert [event["time"] for event in found] == pytest.approx([event["time"] for event in expected])
    assert {event["type"] for event in found} <= {"key"}


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
@pytest.mark.parametrize("sizes", [[1, 700], [40, 3], [137], [3000]])
@pytest.mark.parametrize("norm", ["frozen", "running"])
def test_keys_are_those_of_one_forward_pass(norm, sizes, decoder):
    model, x = tiny_model(input_norm=norm), noise(1500 if decoder == "beam" else 3000)
    with torch.no_grad():
        logits = model(torch.from_numpy(x[[1, 0, 2, 3]])[None]).logits[0].numpy()  # the left band is turned
    recognizer = recognizer_of(model, decoder)
    found = push_all(recognizer, x, sizes) + recognizer.finish()
    assert_same(found, expected_events(logits, decoder))
    assert len(found) > 5 and recognizer.keystrokes == "".join(event["key"] for event in found)
    assert recognizer.text == apply_keystrokes(recognizer.keystrokes)


def test_keys_come_as_soon_as_they_are_known():
    """None later than the stated delay."""
    for fields in ({"positional_conv_causal": True}, {}):
        recognizer = recognizer_of(tiny_model(input_norm="frozen", **fields))
        centred = 0 if fields else 3
        assert recognizer.delay == pytest.approx((20 * centred + 41 + 20 - 2) / 2000)
        x, seen = noise(), 0
        for first in range(0, 3000, 20):
            for event in recognizer.push(x[:, first : first + 20]):
                seen += 1
                assert (first + 20) / 2000 - event["time"] <= recognizer.delay
        assert seen > 5


class Interrupted(Source):
    name, num_channels, sampling_rate, paced, waits = "device", 4, 2000.0, False, True

    def __init__(self, *chunks):
        self.list = chunks

    def chunks(self):
        yield from self.list


@pytest.mark.parametrize("restart", [False, True])
def test_breaks(restart):
    """What waited for later frames comes out before a break; behind it the stream begins anew."""
    model, x = tiny_model(input_norm="running", running_norm_frames=10), noise()
    first, second = x[:, :1400], x[:, 1600:]
    index = 0 if restart else 1600
    session = LiveSession(Interrupted(Chunk(first, 0, 0.0), Chunk(second, index, 0.0)), recognizer_of(model))
    events = list(session.events())
    place = [event["type"] for event in events].index("break")
    turned = [torch.from_numpy(part[[1, 0, 2, 3]])[None] for part in (first, second)]
    stream = SEMGTransformerStream(model)
    before = torch.cat([stream.push(turned[0]), stream.finish()], dim=1)[0]
    stream.reset(forget=restart)  # the running norm goes on over a gap
    after = torch.cat([stream.push(turned[1]), stream.finish()], dim=1)[0]
    start = 1400 if restart else 1600
    assert events[place] == {
        "type": "break", "kind": "restart" if restart else "gap", "time": start / 2000,
        "lost": 0 if restart else 0.1,
    }  # fmt: skip
    assert_same(events[:place], expected_events(before.numpy(), "greedy"))
    assert_same(events[place + 1 :], expected_events(after.numpy(), "greedy", start))
    assert place > 2 and len(events) > place + 3


def test_modes():
    window, frozen = tiny_model(input_norm="window"), tiny_model(input_norm="frozen", attention_window=20)
    assert recognizer_of(frozen).notes == []
    assert "grow with the session" in recognizer_of(tiny_model(input_norm="frozen")).notes[0]
    windowed = recognizer_of(window, hop=100, window=2000)
    assert "every window of 1 s is computed for itself" in windowed.notes[0]
    found = push_all(windowed, noise(1000), [300]) + windowed.finish()
    with torch.no_grad():
        logits = window(torch.from_numpy(noise(1000)[[1, 0, 2, 3]])[None]).logits[0].numpy()
    assert found and {event["key"] for event in found} & {event["key"] for event in expected_events(logits, "greedy")}
    for model, options, message in (
        (window, {"mode": "exact"}, 'mode=exact: this model has input_norm="window"'),
        (frozen, {"mode": "fast"}, "mode='fast': unknown; use one of exact, windowed"),
        (frozen, {"mode": "windowed", "hop": 110}, "mode=windowed: window=8000 and hop=110"),
        (frozen, {"hop": 100}, "hop=100: in the mode exact"),
    ):
        with pytest.raises(StreamError, match=message):
            recognizer_of(model, **options)
    other = EmgCharacterTokenizer(characters="ab")
    with pytest.raises(CharsetError, match="99 outputs"):
        TextRecognizer(frozen, SEMGTransformerFeatureExtractor(4, bands=(2, 2)), other, timed_decoder(other))
