"""The recipes of docs/corpora-through-emg-folder.md on two real people of each corpus, counted independently."""

import lzma
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dataset_builders import WindowDataset, load_corpus
from dataset_builders.base import DataError
from trainers.baselines import make_classifiers, time_domain_features

GUIDE = Path(__file__).parents[2] / "docs/corpora-through-emg-folder.md"
OPTIONS = {"normalization": "none", "gain": 0.05}
ORDER = (
    "neutral",
    "radial deviation",
    "wrist flexion",
    "ulnar deviation",
    "wrist extension",
    "hand close",
    "hand open",
)
CLASSES = ["hibernation", "flexion", "extension", "radial", "ulnar", "pronation", "supination", "fist"]


def unpack(archive: Path, pattern: str, count: int, target: Path) -> list[Path]:
    """The first `count` files of an archive whose name matches; reading stops there."""
    found = []
    with lzma.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        for member in members:
            if member.isfile() and re.search(pattern, member.name):
                members.extract(member, target, filter="data")
                found.append(target / member.name)
                if len(found) == count:
                    return found
    raise AssertionError(f"{archive} holds {len(found)} files like {pattern}, not {count}")


def write_index(folder: Path, monkeypatch) -> None:
    """Run the guide's recipe for the corpus in `folder`."""
    recipes = re.findall(r"```python\n(import csv\n.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    recipe = next(recipe for recipe in recipes if f'Path("{folder.name}")' in recipe)
    assert recipe.count("\n") <= 20
    monkeypatch.chdir(folder.parent)
    exec(compile(recipe, str(GUIDE), "exec"), {})


def test_cote_allard(shared_dir, tmp_path, monkeypatch):
    archive = shared_dir / "data/myo_cote_allard.tar.xz"
    people = r"EvaluationDataset/(Male0|Male1)/.*\.dat$"
    files = unpack(archive, people, 2 * 3 * 28, tmp_path)
    folder = next(path for path in files[0].parents if path.name == "EvaluationDataset").parent
    write_index(folder, monkeypatch)
    data, _ = load_corpus("emg_folder", folder, raw_type="int16", raw_channels=8, **OPTIONS)
    names = data["train"].features["label"].names
    assert names == sorted(ORDER)
    sessions = {"train": "training0", "validation": "Test0", "test": "Test1"}
    for split, part in data.items():
        expected = dict.fromkeys(ORDER, 0)
        for file in files:
            if file.parent.name == sessions[split]:
                gesture = ORDER[int(re.search(r"\d+", file.stem)[0]) % 7]
                expected[gesture] += (file.stat().st_size // 16 - 200) // 100 + 1
        assert np.bincount(part["label"], minlength=7).tolist() == [expected[name] for name in names]
        assert set(part["subject"]) == {"Evaluation-Male0", "Evaluation-Male1"}
        assert set(part["session"]) == {sessions[split]}
    scores = []
    for person in ("Evaluation-Male0", "Evaluation-Male1"):
        own = {split: data[split].filter(lambda s: s == person, input_columns="subject") for split in sessions}  # noqa: B023
        features = {split: WindowDataset(part).arrays() for split, part in own.items()}
        model = make_classifiers()["LDA"].fit(time_domain_features(features["train"][0]), features["train"][1])
        scores.append(model.score(time_domain_features(features["validation"][0]), features["validation"][1]))
    assert min(scores) > 0.9


def test_raw_numbers_are_the_signal(shared_dir, tmp_path, monkeypatch):
    files = unpack(shared_dir / "data/myo_cote_allard.tar.xz", r"Dataset/\w+/training0/classe_\d+\.dat$", 28, tmp_path)
    folder = next(path for path in files[0].parents if path.name.endswith("Dataset")).parent
    write_index(folder, monkeypatch)
    raw = {"band_pass": None, "notch_frequencies": (), "normalization": "none", "allow_constant_channels": True}
    data, _ = load_corpus("emg_folder", folder, raw_type="int16", raw_channels=8, **raw)
    for row in data["train"].select(range(0, len(data["train"]), 7)).with_format("numpy"):
        stored = np.frombuffer((folder / row["recording"]).read_bytes(), "<i2").reshape(-1, 8)
        np.testing.assert_array_equal(row["input_values"], stored[row["start"] : row["start"] + 200].T)


def test_myo_readings(shared_dir, tmp_path, monkeypatch):
    files = unpack(shared_dir / "data/myo_readings.tar.xz", r"hand/\d+-1/[0-7]\.txt$", 16, tmp_path)
    folder = files[0].parents[2]
    write_index(folder, monkeypatch)
    people = {file.parent.name.split("-")[0] for file in files}
    one, two = sorted(people)
    with pytest.raises(DataError, match="needs at least 3 subjects"):
        load_corpus("emg_folder", folder, class_names=CLASSES, **OPTIONS)
    data, _ = load_corpus("emg_folder", folder, class_names=CLASSES, test_subjects=[two], **OPTIONS)
    for split, person in (("train", one), ("test", two)):
        windows = np.zeros(8, int)
        for file in files:
            if file.parent.name.startswith(f"{person}-"):
                classes = [int(line.rsplit(b",", 1)[1]) for line in file.read_bytes().split()]
                borders = [0, *(i for i in range(1, len(classes)) if classes[i] != classes[i - 1]), len(classes)]
                for start, stop in zip(borders, borders[1:], strict=False):
                    windows[classes[start]] += max(0, (stop - start - 200) // 100 + 1)
        assert np.bincount(data[split]["label"], minlength=8).tolist() == windows.tolist()
        assert set(data[split]["subject"]) == {person}


def test_the_faulty_file_is_refused_by_line(shared_dir, tmp_path):
    (file,) = unpack(shared_dir / "data/myo_readings.tar.xz", r"64917-1/2\.txt$", 1, tmp_path)
    (file.parent / "metadata.csv").write_text("file_name,label_column,split,sampling_rate\n2.txt,8,train,200\n")
    with pytest.raises(DataError, match=r"2\.txt, line 1032: 11 columns where the first row has 9"):
        load_corpus("emg_folder", file.parent, class_names=CLASSES)
