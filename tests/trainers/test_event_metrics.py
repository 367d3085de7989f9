"""CLER against cases worked out on paper from the rules, and its alignment against a table computed in full."""

import time

import numpy as np
import pytest

from tinymyo_hf.event_detection import TimedEvents
from trainers.errors import EvaluationError
from trainers.event_alignment import Intervals, align, reachable_predictions
from trainers.event_metrics import Cler, count_events, event_scores

NAMES = (
    "index_press",
    "index_release",
    "middle_press",
    "middle_release",
    "thumb_click",
    "thumb_down",
    "thumb_in",
    "thumb_out",
    "thumb_up",
)
# short names for the cases
IP, IR, MP, MR, CLICK, DOWN, IN, OUT, UP = range(9)


def events(*pairs):
    """`events((IP, 1.0), ...)`."""
    return TimedEvents(np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.float64))


def compare(truth, predicted, seconds=3600.0):
    return count_events(events(*truth), events(*predicted), NAMES, seconds)


def align_events(truth, predicted):
    return align(Intervals.of(events(*truth), -0.05, 0.25), Intervals.of(events(*predicted)))


def matched(counts):
    """{(truth, prediction): count} of the matched events."""
    return {(i, j): int(counts.confusion[i, j]) for i, j in zip(*np.nonzero(counts.confusion), strict=True)}


def named(counts, kind):
    return {i: int(n) for i, n in enumerate(getattr(counts, kind)) if n}


def test_case_1_right_wrong_missed_and_false():
    # click at 1.0 found 0.1 s later; down at 3.0 taken for up; in at 5.0 missed; out at 7.0 without an event.
    # Errors: click 1 - 1/1 = 0, down 1 - 0/1 = 1; in has no matched event, so it has no rate. CLER = (0 + 1) / 2.
    counts = compare([(CLICK, 1), (DOWN, 3), (IN, 5)], [(CLICK, 1.1), (UP, 3.1), (OUT, 7)])
    assert matched(counts) == {(CLICK, CLICK): 1, (DOWN, UP): 1}
    assert (named(counts, "missed"), named(counts, "false")) == ({IN: 1}, {OUT: 1})
    assert counts.cler() == 0.5
    # f1: one correct of 3 events and 3 predictions
    assert counts.f1() == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("at", "found"),
    # rule 3: the event at 10.0 may be matched from 9.95 to 10.25, both included
    [(9.94, False), (9.95, True), (10.0, True), (10.25, True), (10.26, False)],
)
def test_case_2_tolerance(at, found):
    counts = compare([(CLICK, 10.0)], [(CLICK, at)])
    assert counts.confusion[CLICK, CLICK] == found
    assert counts.missed[CLICK] == counts.false[CLICK] == (not found)
    assert counts.cler() == (0.0 if found else None)


def test_case_3_fewest_mismatches_come_first():
    # Truth: click 1.00 [0.95, 1.25], down 1.20 [1.15, 1.45]. Predictions: down 1.19, click 1.21: both lie in both
    # intervals. An alignment keeps the order, so either both are crossed by one gap each: click-None, down-down 1.19,
    # None-click: 2 mismatches and 0.01 s; or click-down, down-click: 2 mismatches and 0.19 + 0.01 s; or None-down 1.19,
    # click-click 1.21, down-None: 2 mismatches and 0.21 s. All have 2: the smallest difference in time wins.
    counts = compare([(CLICK, 1.0), (DOWN, 1.2)], [(DOWN, 1.19), (CLICK, 1.21)])
    assert matched(counts) == {(DOWN, DOWN): 1}
    assert (named(counts, "missed"), named(counts, "false")) == ({CLICK: 1}, {CLICK: 1})


def test_case_4_a_name_outweighs_any_difference_in_time():
    # Truth: click 1.0. Predictions: down 1.0 (dt 0) and click 1.24 (dt 0.24). Matching click costs 1 gap + 0;
    # matching down costs 1 gap + 1 mismatch: the later one is matched.
    counts = compare([(CLICK, 1.0)], [(DOWN, 1.0), (CLICK, 1.24)])
    assert matched(counts) == {(CLICK, CLICK): 1}
    assert named(counts, "false") == {DOWN: 1}


def test_case_5_a_substitution_is_cheaper_than_two_gaps():
    # matching different names costs 1, leaving both out costs 2
    assert matched(compare([(CLICK, 1.0)], [(UP, 1.0)])) == {(CLICK, UP): 1}


def test_case_6_of_two_equal_names_the_nearer_in_time():
    # one gap either way; |1.05 - 1| = 0.05 < |1.20 - 1| = 0.20
    assert align_events([(CLICK, 1.0)], [(CLICK, 1.05), (CLICK, 1.2)]) == [(0, 0), (None, 1)]
    assert align_events([(CLICK, 1.2)], [(CLICK, 1.16), (CLICK, 1.21)]) == [(None, 0), (0, 1)]


def test_case_7_ties_prefer_the_gap_of_the_left_event():
    # Left: clicks at 1.0 and 1.5, within reach from 0.7 to 1.3 and from 1.2 to 1.8; right: a click at 1.25, 0.25 s from
    # both. Matching either costs one gap and 0.25 s. The last step decides: a gap for the second left event, so that
    # the first is matched, comes before a match.
    left, right = events((CLICK, 1.0), (CLICK, 1.5)), events((CLICK, 1.25))
    assert align(Intervals.of(left, -0.3, 0.3), Intervals.of(right)) == [(0, 0), (1, None)]
    # The same with sides exchanged: the last step is a gap for the second right event rather than a match.
    assert align(Intervals.of(right), Intervals.of(left, -0.3, 0.3)) == [(0, 0), (None, 1)]


def test_case_8_of_two_gaps_the_left_one_is_last():
    # Nothing overlaps: both last steps cost two gaps; that for the left event is preferred.
    assert align_events([(CLICK, 1.0)], [(CLICK, 5.0)]) == [(None, 0), (0, None)]


@pytest.mark.parametrize(
    ("truth", "predicted", "kept"),
    [
        # NEUTRAL (at the start, and after a thumb gesture): both releases are dropped, presses are not
        ([], [(IR, 1.0), (MR, 2.0), (IP, 3.0)], [False, False, True]),
        ([(IP, 1.0), (CLICK, 2.0)], [(IP, 1.1), (CLICK, 2.1), (IR, 3.0)], [True, True, False]),
        # INDEX: the middle finger's release is dropped; the index finger's is kept, also twice: it is the true
        # release that makes the state neutral, and there is none
        ([(IP, 1.0)], [(IP, 1.1), (MR, 2.0), (IR, 3.0), (IR, 4.0)], [True, False, True, True]),
        # MIDDLE: the other way round
        ([(MP, 1.0)], [(MP, 1.1), (MR, 2.0), (IR, 3.0)], [True, True, False]),
        # neutral after the true release, however late the predicted one was
        ([(IP, 1.0), (IR, 2.0)], [(IP, 1.1), (IR, 2.1), (IR, 3.0)], [True, True, False]),
        # check first, then advance: the release that is matched with the true release is checked while still pressed
        ([(MP, 1.0), (MR, 2.0)], [(MR, 2.1)], [True]),
        # ... and the one matched with the press itself while still neutral
        ([(IP, 1.0)], [(IR, 1.1)], [False]),
        # the truth drives the state: a predicted press alone does not
        ([], [(IP, 1.0), (IR, 1.5)], [True, False]),
    ],
)
def test_case_9_releases_count_while_their_finger_is_pressed(truth, predicted, kept):
    assert reachable_predictions(events(*truth), events(*predicted), NAMES).tolist() == kept


def test_case_10_a_dropped_release_makes_room_for_the_next_prediction():
    # Index press at 1.0; predictions: index release 1.0 (neutral: dropped) and middle press 1.2. First alignment
    # (predictions on the left): matching either costs 1 mismatch + 1 gap = 2; the release differs by 0 s. After it is
    # dropped, the middle press is matched with the index press: taken for another gesture, error 1.
    counts = compare([(IP, 1.0)], [(IR, 1.0), (MP, 1.2)])
    assert matched(counts) == {(IP, MP): 1}
    assert (counts.dropped, named(counts, "false"), counts.cler()) == (1, {}, 1.0)


def test_case_11_gestures_are_averaged_not_events():
    # three of three clicks right, one of two downs right: (0 + 1/2) / 2, not 1 of 5
    truth = [(CLICK, 1), (CLICK, 2), (CLICK, 3), (DOWN, 4), (DOWN, 5)]
    predicted = [(CLICK, 1), (CLICK, 2), (CLICK, 3), (DOWN, 4), (UP, 5)]
    assert compare(truth, predicted).cler() == 0.25


def test_case_12_nothing_predicted():
    counts = compare([(CLICK, 1), (IP, 2)], [])
    assert counts.cler() is None
    assert (counts.f1(), counts.missed.sum()) == (0.0, 2)
    scores = event_scores([counts], NAMES)
    assert (scores["cler"], scores["cler_pooled"], scores["misses_per_hour"]) == (None, None, 2.0)


def test_case_13_nothing_to_predict():
    counts = compare([], [(CLICK, 1), (IR, 2)], seconds=1800)
    assert counts.cler() is None
    # the release is dropped, the click is false: 1 in half an hour
    scores = event_scores([counts], NAMES)
    assert (scores["false_activations_per_hour"], scores["dropped_releases_per_hour"]) == (2.0, 2.0)


def test_case_14_true_events_out_of_order():
    # Rule 3 for clicks listed as 5.0, 1.0: starts 4.95, 0.95 -> running maximum 4.95, 4.95; ends 5.25, 1.25 -> from
    # the last, running minimum: 1.25, 1.25. No interval is left: nothing can be matched.
    counts = compare([(CLICK, 5.0), (CLICK, 1.0)], [(CLICK, 1.0), (CLICK, 5.0)])
    assert (matched(counts), named(counts, "missed"), named(counts, "false")) == ({}, {CLICK: 2}, {CLICK: 2})
    # Slightly out of order, 1.1 and 1.0: starts 1.05, 0.95 -> 1.05, 1.05; ends 1.35, 1.25 -> 1.25, 1.25. Both remain
    # [1.05, 1.25]; predictions at 1.02 (too early now) and 1.2: one is matched. Names: down 1.1, click 1.0.
    counts = compare([(DOWN, 1.1), (CLICK, 1.0)], [(DOWN, 1.02), (CLICK, 1.2)])
    assert matched(counts) == {(CLICK, CLICK): 1}
    assert (named(counts, "missed"), named(counts, "false")) == ({DOWN: 1}, {DOWN: 1})


def test_case_15_mean_over_recordings_and_pooled():
    # Recording 1: click right (error 0). Recording 2: three clicks, all taken for down (error 1).
    # Mean of 0 and 1 is 0.5; pooled, 3 of 4 clicks are wrong. A recording without a match has no say in the mean.
    first = compare([(CLICK, 1)], [(CLICK, 1)], 60)
    second = compare([(CLICK, 1), (CLICK, 2), (CLICK, 3)], [(DOWN, 1), (DOWN, 2), (DOWN, 3)], 60)
    third = compare([(CLICK, 1)], [], 60)
    for order in ([first, second, third], [third, second, first]):
        scores = event_scores(order, NAMES)
        assert (scores["cler"], scores["cler_pooled"]) == (0.5, 0.75)
        assert (scores["recordings"], scores["events"], scores["hours"]) == (3, 5, 0.05)
        assert scores["misses_per_hour"] == pytest.approx(20)
    click = scores["per_gesture"][CLICK]
    assert (click["events"], click["matched"], click["correct"], click["error"]) == (5, 4, 1, 0.75)
    assert scores["per_gesture"][UP]["error"] is None
    assert scores["confusion_matrix"][CLICK][DOWN] == 3


def test_case_16_press_and_release_in_one_reach():
    # A quick tap: press 1.0, release 1.15; predictions 0.1 s late: press 1.1 and release 1.25, both within reach of
    # both. Straight: 0 mismatches. The release is checked after the true press has advanced the state to INDEX.
    counts = compare([(IP, 1.0), (IR, 1.15)], [(IP, 1.1), (IR, 1.25)])
    assert matched(counts) == {(IP, IP): 1, (IR, IR): 1}
    assert counts.cler() == 0.0


def full_table(left, right):
    """The alignment of `align`, from the whole table and a comparison written out."""
    n, m = len(left.labels), len(right.labels)
    cost, step = {(0, 0): (0, 0.0)}, {}
    for i in range(n + 1):
        for j in range(m + 1):
            options = []
            if i:
                options.append((cost[i - 1, j][0] + 1, cost[i - 1, j][1], 0))
            if j:
                options.append((cost[i, j - 1][0] + 1, cost[i, j - 1][1], 1))
            overlap = i and j and left.starts[i - 1] <= right.ends[j - 1] and right.starts[j - 1] <= left.ends[i - 1]
            if overlap:
                before = cost[i - 1, j - 1]
                differs = int(left.labels[i - 1] != right.labels[j - 1])
                options.append((before[0] + differs, before[1] + abs(left.times[i - 1] - right.times[j - 1]), 2))
            if options:
                *best, step[i, j] = min(options)
                cost[i, j] = tuple(best)
    path, i, j = [], n, m
    while i or j:
        kind = step[i, j]
        i, j = i - (kind != 1), j - (kind != 0)
        path.append((i if kind != 1 else None, j if kind != 0 else None))
    return path[::-1]


@pytest.mark.parametrize("seed", range(60))
def test_the_band_gives_the_alignment_of_the_whole_table(seed):
    # times in sixteenths of a second, so that sums are exact and ties are frequent
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        count, span = rng.integers(0, 25), rng.choice([16, 60, 400])
        times = np.sort(rng.integers(0, span, count)) / 16
        if seed % 3 == 0:
            rng.shuffle(times[: count // 2])
        sides.append(TimedEvents(rng.integers(0, 3, count), times))
    padded = Intervals.of(sides[0], *rng.choice([(-0.05, 0.25), (-0.5, 1.0)]))
    points = Intervals.of(TimedEvents(sides[1].labels, np.sort(sides[1].times)))
    assert align(padded, points) == full_table(padded, points)
    assert align(points, padded) == full_table(points, padded)


def test_a_long_recording_is_scored_quickly():
    # 40 minutes with 2,000 events, and a detector that fires 20 times a second
    rng = np.random.default_rng(0)
    truth = TimedEvents(rng.integers(0, 9, 2000), np.sort(rng.uniform(0, 2400, 2000)))
    predicted = TimedEvents(rng.integers(0, 9, 48_000), np.sort(rng.uniform(0, 2400, 48_000)))
    started = time.perf_counter()
    count_events(truth, predicted, NAMES, 2400)
    assert time.perf_counter() - started < 5


def test_the_metric_of_the_library():
    truth = [{"labels": [CLICK, DOWN], "times": [1.0, 3.0]}, {"labels": [UP], "times": [1.0]}]
    predicted = [{"labels": [CLICK, UP], "times": [1.1, 3.1]}, {"labels": [], "times": []}]
    scores = Cler().compute(predictions=predicted, references=truth, names=NAMES, seconds=[1800.0, 1800.0])
    counts = [compare([(CLICK, 1), (DOWN, 3)], [(CLICK, 1.1), (UP, 3.1)], 1800), compare([(UP, 1)], [], 1800)]
    assert scores == event_scores(counts, NAMES)
    assert (scores["cler"], scores["misses_per_hour"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([(9, 1.0)], [], "true events range from 9 to 9, outside the 9 gestures"),
        ([], [(-1, 1.0)], "predicted events range from -1"),
        ([(CLICK, 61.0)], [], "true event 0 is at 61 s, outside its recording of 60 s"),
        ([(CLICK, float("nan"))], [], "true event 0 is at nan s"),
        ([], [(CLICK, 2.0), (CLICK, 1.0)], "in order of time"),
    ],
)
def test_what_cannot_be_scored(truth, predicted, message):
    with pytest.raises(EvaluationError, match=message):
        compare(truth, predicted, 60.0)


def test_nothing_to_score():
    with pytest.raises(EvaluationError, match="split is empty"):
        event_scores([], NAMES)
    with pytest.raises(EvaluationError, match="1 values for 0"):
        Cler()._compute([], [], NAMES, [1.0])
