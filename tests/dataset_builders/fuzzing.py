"""Damaged files: strategies that truncate, flip bits, overwrite and replace the bytes of a valid file."""

from hypothesis import strategies as st


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Variants of `valid`: cut off, with flipped bits, with a stretch overwritten, or random bytes altogether."""
    position = st.integers(0, len(valid) - 1)
    truncated = position.map(lambda end: valid[:end])
    flipped = st.lists(st.tuples(position, st.integers(0, 7)), min_size=1, max_size=8).map(
        lambda flips: _flip(valid, flips)
    )
    overwritten = st.tuples(position, st.binary(min_size=1, max_size=64)).map(
        lambda patch: (valid[: patch[0]] + patch[1] + valid[patch[0] + len(patch[1]) :])[: len(valid)]
    )
    return st.one_of(truncated, flipped, overwritten, st.binary(max_size=200))


def _flip(valid: bytes, flips: list[tuple[int, int]]) -> bytes:
    content = bytearray(valid)
    for position, bit in flips:
        content[position] ^= 1 << bit
    return bytes(content)
