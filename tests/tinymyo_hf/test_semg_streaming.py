"""Streams of the sEMG transformers against one forward pass over the whole recording."""

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinymyo_hf import SEMGTransformerConfig, SEMGTransformerForCTC
from tinymyo_hf.semg_transformer.quantization import Int8Linear, quantize_dynamic
from tinymyo_hf.semg_transformer.streaming import (
    SEMGTransformerStream,
    WindowedStream,
    session_logits,
    session_statistics,
)

CHANNELS, BLANK, SAMPLES = 6, 10, 911
COMBINATIONS = list(itertools.product(["frozen", "running", "window"], [False, True], [None, 9], [False, True]))


@functools.cache
def build(dtype: torch.dtype = torch.float64, layers: int = 2, **changes) -> SEMGTransformerForCTC:
    """A model whose zero biases, unit norms and stored statistics are perturbed, so that they hide nothing."""
    torch.manual_seed(0)
    fields = {
        "num_channels": CHANNELS, "conv_dim": [12, 8, 8], "hidden_size": 32, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "vocab_size": 11, "pad_token_id": BLANK, "running_norm_frames": 3,
    }  # fmt: skip
    model = SEMGTransformerForCTC(SEMGTransformerConfig(**fields | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.2 if parameter.ndim == 1 else 0.1) * torch.randn_like(parameter))
    model.base_model.set_input_statistics(torch.randn(12), 0.5 + torch.rand(12))
    return model.to(dtype)


def variant(norm: str, causal: bool, window: int | None, norm_first: bool, **others) -> SEMGTransformerForCTC:
    return build(
        input_norm=norm, positional_conv_causal=causal, attention_window=window, do_stable_layer_norm=norm_first,
        **others,
    )  # fmt: skip


@functools.cache
def recordings(batch: int = 2, samples: int = SAMPLES, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, CHANNELS, samples, generator=generator, dtype=torch.float64) + 1


@functools.lru_cache(maxsize=64)
def offline(model: SEMGTransformerForCTC, batch: int = 2, samples: int = SAMPLES) -> torch.Tensor:
    with torch.no_grad():
        return model(recordings(batch, samples)).logits


def stream_of(model: SEMGTransformerForCTC, samples: torch.Tensor) -> SEMGTransformerStream:
    statistics = session_statistics(model, samples) if model.config.input_norm == "window" else None
    return SEMGTransformerStream(model, len(samples), statistics)


def streamed(stream, samples: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """All logits, the samples pushed in pieces of `sizes`, in turn; the last piece is what is left."""
    parts, first = [], 0
    for size in [*sizes, samples.shape[-1]]:
        parts.append(stream.push(samples[..., first : first + size]))
        first += size
    return torch.cat([*parts, stream.finish()], dim=1)


def greedy(logits: torch.Tensor) -> list[list[int]]:
    return [[k for k, _ in itertools.groupby(row) if k != BLANK] for row in logits.argmax(-1).tolist()]


chunkings = st.lists(st.one_of(st.integers(0, 3), st.sampled_from([19, 20, 21, 40, 41]), st.integers(0, 400)))


@pytest.mark.parametrize(("norm", "causal", "window", "norm_first"), COMBINATIONS)
@settings(max_examples=6, deadline=None)
@given(sizes=chunkings)
def test_however_the_signal_is_cut_the_stream_gives_the_logits_of_one_forward_pass(
    norm, causal, window, norm_first, sizes
):
    model = variant(norm, causal, window, norm_first)
    logits = streamed(stream_of(model, recordings()), recordings(), sizes)
    torch.testing.assert_close(logits, offline(model), rtol=0, atol=1e-12)
    assert greedy(logits) == greedy(offline(model))


@pytest.mark.parametrize(("norm", "causal", "window", "norm_first"), COMBINATIONS[::5])
@pytest.mark.parametrize("sizes", [[1] * 130, [20] * 50])
def test_small_regular_pushes_in_float32(norm, causal, window, norm_first, sizes):
    model = variant(norm, causal, window, norm_first, dtype=torch.float32)
    with torch.no_grad():
        reference = model(recordings().float()).logits
    logits = streamed(stream_of(model, recordings().float()), recordings(), sizes)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", [128, 15, 1])
def test_positional_kernels_longer_than_the_recording_odd_and_of_one_tap(kernel):
    for causal in (False, True):
        model = variant("frozen", causal, 5, False, num_conv_pos_embeddings=kernel)
        stream = stream_of(model, recordings())
        assert stream.delay == (0 if causal else (kernel - 1) // 2)
        torch.testing.assert_close(streamed(stream, recordings(), [50, 20, 333]), offline(model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 1, 40, 700])
def test_memory_of_the_past_moves_and_grows_without_changing_the_logits(window):
    samples = 31_000  # frames: more than the first capacity, pushes longer than a piece
    model = variant("frozen", True, window, False, layers=1)
    logits = streamed(stream_of(model, recordings(1, samples)), recordings(1, samples), [100, 6000, 20, 11_000, 60])
    torch.testing.assert_close(logits, offline(model, 1, samples), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["frozen", "running"])
@pytest.mark.parametrize("causal", [False, True])
def test_frames_come_as_soon_as_stated_and_no_later_sample_changes_them(norm, causal):
    model = variant(norm, causal, None, False)
    past, future = recordings()[..., :500], 50 * recordings(seed=2)
    emitted = SEMGTransformerStream(model, 2).push(past)
    assert emitted.shape[1] == model.config.num_frames(500) - (0 if causal else 7)
    with torch.no_grad():
        disturbed = model(torch.cat([past, future], dim=-1)).logits
    torch.testing.assert_close(disturbed[:, : emitted.shape[1]], emitted, rtol=0, atol=1e-12)


def tensor_bytes(value: object, model: SEMGTransformerForCTC) -> int:
    """Memory behind all tensors reachable from a stream, without those of its model."""
    if value is model or isinstance(value, torch.nn.Module):
        return 0
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, list | tuple):
        return sum(tensor_bytes(part, model) for part in value)
    return sum(tensor_bytes(part, model) for part in vars(value).values()) if hasattr(value, "__dict__") else 0


@pytest.mark.parametrize(("window", "grows"), [(20, False), (None, True)])
@pytest.mark.parametrize("norm", ["frozen", "running"])
def test_memory_is_flat_with_an_attention_window(norm, window, grows):
    stream = SEMGTransformerStream(variant(norm, False, window, False, layers=1))
    sizes = []
    for _ in range(30):
        stream.push(recordings(1, 1000))
        sizes.append(tensor_bytes(stream, stream.model))
    assert sizes[1] > 0
    assert (max(sizes[15:]) > sizes[1]) == grows


@pytest.mark.parametrize("norm", ["window", "frozen", "running"])
@pytest.mark.parametrize("chunk", [7, 333, 5000])
def test_a_whole_session_in_pieces_equals_one_forward_pass(norm, chunk):
    model = variant(norm, False, None, False)
    logits = session_logits(model, recordings(), chunk=chunk)
    torch.testing.assert_close(logits, offline(model), rtol=0, atol=1e-12)


def test_a_session_on_disk_is_read_in_pieces(tmp_path):
    model = variant("window", False, None, False)
    np.save(tmp_path / "session.npy", recordings().numpy())
    session = np.load(tmp_path / "session.npy", mmap_mode="r")
    torch.testing.assert_close(session_logits(model, session, chunk=200), offline(model), rtol=0, atol=1e-12)


def test_session_statistics_survive_a_large_offset():
    model = variant("window", False, None, False)
    samples = recordings() + 1e6
    with torch.no_grad():
        states = model.base_model.feature_extractor.conv_layers[0].conv(recordings())
        offset = model.base_model.feature_extractor.conv_layers[0].conv(samples) - states
    mean, variance = session_statistics(model, samples, chunk=100)
    torch.testing.assert_close(mean, (states + offset.mean(-1, keepdim=True)).mean(-1), rtol=1e-9, atol=0)
    torch.testing.assert_close(variance, states.var(-1, correction=0), rtol=1e-6, atol=0)


def test_after_a_reset_nothing_of_the_recording_before_is_left():
    for norm in ("frozen", "running"):
        model = variant(norm, False, None, False)
        stream = SEMGTransformerStream(model, 2)
        stream.push(recordings(seed=3))
        stream.finish()
        stream.reset()
        torch.testing.assert_close(streamed(stream, recordings(), [77]), offline(model), rtol=0, atol=1e-12)


def test_behind_a_gap_the_running_norm_knows_the_signal_before_it():
    model = variant("running", True, None, False, running_norm_frames=0)
    stream = SEMGTransformerStream(model)
    before, after = recordings(1, seed=3)[..., :511], recordings(1)
    stream.push(before)
    stream.reset(forget=False)
    logits = streamed(stream, after, [300])
    # The same, as a model that has the statistics of the signal before the gap stored with their weight.
    frames = (511 - 11) // 5 + 1
    informed = variant("running", True, None, False, running_norm_frames=frames)
    informed.base_model.set_input_statistics(*model.base_model.input_statistics(before))
    with torch.no_grad():
        torch.testing.assert_close(logits, informed(after).logits, rtol=0, atol=1e-12)


def test_changed_weights_count_from_the_next_reset():
    model = build(input_norm="frozen", layers=1)
    stream = SEMGTransformerStream(model, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    stream.reset(forget=False)
    with torch.no_grad():
        reference = model(recordings()).logits
    torch.testing.assert_close(streamed(stream, recordings(), [400]), reference, rtol=0, atol=1e-12)


def windowed_reference(model, samples, window, hop, look_ahead) -> list[torch.Tensor]:
    """Frame by frame, from the first window in which `look_ahead` frames follow; the rest from the last window."""
    total, frames = samples.shape[-1], {}
    for stop, behind in [*((stop, look_ahead) for stop in range(hop, total + 1, hop)), (total, 0)]:
        first = max(0, -(-(stop - window) // 20))
        if stop - 20 * first < 41:
            continue
        with torch.no_grad():
            logits = model(samples[..., 20 * first : stop]).logits
        for i in range(logits.shape[1] - behind):
            frames.setdefault(first + i, logits[:, i])
    return [frames[i] for i in range(len(frames))]


@settings(max_examples=4, deadline=None)
@given(sizes=chunkings, look_ahead=st.sampled_from([0, 3, 7]), hop=st.sampled_from([60, 300]))
def test_a_windowed_stream_gives_the_frames_of_each_window_once(sizes, look_ahead, hop):
    model = variant("window", False, None, False)
    stream = WindowedStream(model, window=600, hop=hop, look_ahead=look_ahead, batch_size=2)
    reference = torch.stack(windowed_reference(model, recordings(), 600, hop, look_ahead), dim=1)
    assert reference.shape[1] == model.config.num_frames(SAMPLES)
    for _ in range(2):
        torch.testing.assert_close(streamed(stream, recordings(), sizes), reference, rtol=0, atol=1e-12)
        stream.reset()


def test_the_delay_of_a_windowed_stream_is_that_which_it_states():
    model = variant("window", False, None, False)
    stream = WindowedStream(model, window=600, hop=100)
    assert stream.look_ahead == 7 and stream.delay == 7 + 5 - 1
    behind, emitted = [], 0
    for stop in range(20, SAMPLES, 20):
        emitted += stream.push(recordings(1)[..., stop - 20 : stop]).shape[1]
        behind.append(model.config.num_frames(stop) - emitted)
    assert max(behind) == stream.delay


def test_a_model_with_window_norm_names_the_ways_out():
    with pytest.raises(ValueError, match=r"(?s)statistics.*frozen.*running.*WindowedStream"):
        SEMGTransformerStream(variant("window", False, None, False))


@pytest.mark.parametrize(
    ("mean", "variance", "message"),
    [
        (torch.zeros(11), torch.ones(12), r"mean must be finite, of shape \(12,\) or \(2, 12\)"),
        (torch.zeros(12), torch.ones(3, 12), "variance must be finite, of shape"),
        (torch.full((12,), torch.nan), torch.ones(12), "mean must be finite"),
        (torch.zeros(12), -torch.ones(12), "must not be negative"),
    ],
)
def test_statistics_that_do_not_fit(mean, variance, message):
    with pytest.raises(ValueError, match=message):
        SEMGTransformerStream(variant("window", False, None, False), 2, (mean, variance))


@pytest.mark.parametrize("kind", [SEMGTransformerStream, functools.partial(WindowedStream, window=400, hop=40)])
def test_bad_samples_are_named_and_leave_the_stream_as_it_was(kind):
    model = variant("frozen", False, None, False)
    stream = kind(model, batch_size=1)
    samples = recordings(1)
    first = stream.push(samples[..., :450])
    broken = samples[..., 450:].clone()
    broken[0, 4, 17] = torch.inf
    with pytest.raises(ValueError, match="sample 467 of channel 4"):
        stream.push(broken)
    for wrong in (samples[:, :5], samples[0], recordings()):
        with pytest.raises(ValueError, match=r"\(batch=1, 6 channels, time\)"):
            stream.push(wrong)
    model.train()
    try:
        with pytest.raises(ValueError, match=r"model\.eval\(\)"):
            stream.push(samples)
    finally:
        model.eval()
    rest = [stream.push(samples[..., 450:]), stream.finish()]
    assert sum(part.shape[1] for part in (first, *rest)) == model.config.num_frames(SAMPLES)
    if isinstance(stream, SEMGTransformerStream):
        torch.testing.assert_close(torch.cat([first, *rest], 1), offline(model, 1), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"reset\(\)"):
        stream.push(samples)
    with pytest.raises(ValueError, match=r"reset\(\)"):
        stream.finish()


def test_recordings_shorter_than_a_frame():
    model = variant("window", False, None, False)
    with pytest.raises(ValueError, match="40 samples are fewer than one frame sees"):
        session_logits(model, recordings()[..., :40])
    stream = SEMGTransformerStream(variant("frozen", False, None, False), 2)
    assert stream.push(recordings()[..., :40]).shape == stream.finish().shape == (2, 0, 11)
    assert session_logits(model, recordings()[..., :41]).shape == (2, 1, 11)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hop": 30}, "multiples of 20"), ({"hop": 0}, "multiples of 20"), ({"window": 590}, "multiples of 20"),
        ({"look_ahead": -1}, "not negative"), ({"window": 200, "hop": 100}, "longer window"),
    ],
)  # fmt: skip
def test_windows_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        WindowedStream(variant("window", False, None, False), **{"window": 600, "hop": 100} | fields)


def test_int8_layers_compute_what_their_integers_say():
    torch.manual_seed(0)
    weight, bias, states = torch.randn(24, 16), torch.randn(24), torch.randn(2, 5, 16)
    layer = Int8Linear(weight, bias)
    rows, kernel = states.view(-1, 16).numpy().astype(np.float64), weight.numpy().astype(np.float64)
    steps, sizes = (np.abs(x).max(1, keepdims=True) / 127 for x in (rows, kernel))
    integers = np.rint(rows / steps) @ np.rint(kernel / sizes).T
    expected = integers * steps * sizes.T + bias.numpy()
    np.testing.assert_allclose(layer(states).view(-1, 24).numpy(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(states), torch.nn.functional.linear(states, weight, bias), rtol=0, atol=0.2)
    zeros = torch.zeros(1, 3, 16)  # a frame of zeros has no scale of its own
    torch.testing.assert_close(layer(zeros), bias.expand(1, 3, 24))


def test_a_quantized_model_is_smaller_near_the_model_and_streams():
    model = variant("frozen", True, 30, False, dtype=torch.float32)
    small = quantize_dynamic(model)
    assert not any(isinstance(module, Int8Linear) for module in model.modules())
    assert sum(isinstance(module, Int8Linear) for module in small.modules()) == 2 * 6
    samples = recordings().float()
    with torch.no_grad():
        exact, rounded = model(samples).logits, small(samples).logits
    error = (rounded - exact).abs().mean() / exact.std()
    assert 0 < error < 0.05
    logits = streamed(SEMGTransformerStream(small, 2), samples, [20] * 10 + [137, 1])
    # Where a value lies between two integers, the last bit of a sum may decide which it becomes.
    assert (logits - rounded).abs().amax(-1).median() < 1e-5
    assert (logits - rounded).abs().mean() < 0.1 * (rounded - exact).abs().mean()


def test_models_that_cannot_be_quantized():
    with pytest.raises(ValueError, match="float64"):
        quantize_dynamic(build(input_norm="frozen"))
    model = variant("frozen", True, None, False, dtype=torch.float32)
    model.train()
    try:
        with pytest.raises(ValueError, match=r"model\.eval\(\)"):
            quantize_dynamic(model)
    finally:
        model.eval()
