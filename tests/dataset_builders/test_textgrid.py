"""TextGrid files: what was written is read, whatever the labels; anything else is refused as damaged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.errors import RecordingError
from dataset_builders.textgrid import parse_textgrid, read_textgrid

LABELS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DURATIONS = st.lists(st.integers(1, 500), min_size=1, max_size=8)  # ms


@st.composite
def tiers(draw):
    """{name: [(start, end, label), ...]}, intervals that follow one another."""
    made = {}
    for name in draw(st.lists(LABELS, min_size=1, max_size=3, unique=True)):
        edges = [0]
        for duration in draw(DURATIONS):
            edges.append(edges[-1] + duration)
        made[name] = [(a / 1000, b / 1000, draw(LABELS)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return made


def quoted(label):
    return '"' + label.replace('"', '""') + '"'


def long_format(made):
    end = max(rows[-1][1] for rows in made.values())
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"xmin = 0\nxmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(made)}", "item []:"]
    for i, (name, rows) in enumerate(made.items(), 1):
        lines += [f"    item [{i}]:", '        class = "IntervalTier"', f"        name = {quoted(name)}"]
        lines += [f"        xmin = 0\n        xmax = {rows[-1][1]}", f"        intervals: size = {len(rows)}"]
        for j, (start, stop, label) in enumerate(rows, 1):
            lines += [f"        intervals [{j}]:", f"            xmin = {start}", f"            xmax = {stop}"]
            lines += [f"            text = {quoted(label)}"]
    return "\n".join(lines) + "\n"


def short_format(made):
    end = max(rows[-1][1] for rows in made.values())
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", str(end), "<exists>", str(len(made))]
    for name, rows in made.items():
        lines += ['"IntervalTier"', quoted(name), "0", str(rows[-1][1]), str(len(rows))]
        lines += [str(part) for start, stop, label in rows for part in (start, stop, quoted(label))]
    return "\n".join(lines) + "\n"


@settings(max_examples=50, deadline=None)
@given(made=tiers())
def test_what_was_written_is_read(made):
    assert parse_textgrid(long_format(made)) == parse_textgrid(short_format(made)) == made


@settings(max_examples=50, deadline=None)
@given(made=tiers(), data=st.data())
def test_a_file_cut_off_before_its_last_label_is_refused(made, data):
    text = short_format(made)
    end = data.draw(st.integers(0, len(text) - 3 - len(quoted(list(made.values())[-1][-1][2]))))
    with pytest.raises(ValueError):
        parse_textgrid(text[:end])


@settings(max_examples=100, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(['"ooTextFile"', '"TextGrid"', '"IntervalTier"', '"phones"', "<exists>", "0", "1", "1e9"]),
            max_size=20,
        ).map(" ".join),
    )
)
def test_no_other_error_than_a_refusal(text):
    try:
        found = parse_textgrid(text)
    except ValueError:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.TextGrid"
    made = {"words": [(0.0, 0.5, "naïve"), (0.5, 1.0, "ə")]}
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path.write_bytes(mark + long_format(made).encode(encoding))
    assert read_textgrid(path) == made
    path.write_bytes(b"\xff\x00\xff")
    with pytest.raises(RecordingError, match=r"a\.TextGrid: not a whole TextGrid"):
        read_textgrid(path)
