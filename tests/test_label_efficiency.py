"""What the comparison of label shares reads from runs, and the Myo sessions it pretrains on."""

import csv
import json

import numpy as np
import pytest

from benchmarks import label_efficiency, myo_sessions


def write_run(folder, accuracies, share, seed, forest):
    folder.mkdir(parents=True)
    results = {
        "arguments": {"data": {"train_fraction": share, "train_fraction_seed": seed}},
        "runs": [{"test": {"accuracy": accuracy}} for accuracy in accuracies],
        "baselines": {"Random forest": {"accuracy": forest}},
    }
    (folder / "results.json").write_text(json.dumps(results))


def test_table_and_plot_of_runs(tmp_path, capsys):
    write_run(tmp_path / "from scratch" / "0.1-0", [0.90], 0.1, 0, 0.8)
    write_run(tmp_path / "from scratch" / "0.1-1", [0.92], 0.1, 1, 0.7)
    write_run(tmp_path / "masked" / "0.1-0", [0.95], 0.1, 0, 0.8)  # the same forest: counts once
    write_run(tmp_path / "masked" / "1-0", [0.97], 1.0, 0, 0.9)
    label_efficiency.main([str(tmp_path)])
    table = (tmp_path / "label_efficiency.md").read_text()
    assert table.splitlines()[0] == "| Test accuracy (runs) | 100 % of labels | 10 % of labels |"
    assert "| from scratch |  | 91.00 ± 1.41 (2) |" in table
    assert "| masked | 97.00 (1) | 95.00 (1) |" in table
    assert "| Random forest | 90.00 (1) | 75.00 ± 7.07 (2) |" in table
    assert table.strip() in capsys.readouterr().out
    assert (tmp_path / "label_efficiency.png").read_bytes()[:4] == b"\x89PNG"


def test_only_what_is_missing_is_trained(tmp_path, monkeypatch):
    trained = []

    def run(recipe, overrides):
        fields = dict(zip(overrides[::2], overrides[1::2], strict=True))
        trained.append((recipe, fields["--train_fraction"], fields["--seeds"], fields["--max_steps"]))
        write_run(tmp_path.joinpath(fields["--output_dir"]), [0.9], float(fields["--train_fraction"]), 0, 0.8)

    monkeypatch.setattr(label_efficiency, "run_recipe", run)
    write_run(tmp_path / "from scratch" / "0.05-0", [0.9], 0.05, 0, 0.8)
    arguments = [str(tmp_path), "--data_dir", "raw", "--encoder", "masked=runs/x", "--shares", "0.05", "--seeds", "1"]
    label_efficiency.main(arguments)
    few_labels = "uci_emg_200_few_labels"
    assert trained == [(few_labels, "0.05", "0", "250"), (few_labels + "_ft", "0.05", "0", "250")]
    label_efficiency.main(arguments)
    assert len(trained) == 2


def test_nothing_to_show(tmp_path, capsys):
    with pytest.raises(SystemExit):
        label_efficiency.main([str(tmp_path)])
    assert "--data_dir" in capsys.readouterr().err


def test_sessions_are_joined_and_their_electrodes_turned(tmp_path):
    session = tmp_path / "ca" / "EvaluationDataset" / "Male0" / "Test1"
    session.mkdir(parents=True)
    for number in (0, 1, 7):  # rest, radial deviation, rest again
        (np.arange(8, dtype="<i2")[None] + 10 * number).repeat(3, axis=0).tofile(session / f"classe_{number}.dat")
    copy = tmp_path / "ca" / "PreTrainingDataset" / "Female8" / "training0"
    copy.mkdir(parents=True)
    for person in range(100, 108):
        folder = tmp_path / "mr" / "_readings_right_hand" / f"{person}-1"
        folder.mkdir(parents=True)
        (folder / "7.txt").write_text("0,1,2,3,4,5,6,7,0\n0,1,2,3,4,5,6,7,7\n")
    out = tmp_path / "out"
    myo_sessions.main([str(tmp_path / "ca"), str(tmp_path / "mr"), str(out)])
    with open(out / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["test"] + ["train"] * 2 + ["validation"] * 6
    joined = np.load(out / rows[0]["file_name"])
    assert joined.shape == (9, 9) and joined[:, 8].tolist() == [0, 0, 0, 4, 4, 4, 0, 0, 0]
    assert joined[3].tolist() == [15, 14, 13, 12, 11, 10, 17, 16, 4]
    reading = np.load(out / rows[1]["file_name"])
    assert reading.tolist() == [[6, 5, 4, 3, 2, 1, 0, 7, 0], [6, 5, 4, 3, 2, 1, 0, 7, 1]]
