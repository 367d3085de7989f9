"""Published beside measured: the figures are the paper's, rows run as far as their data are there, and once only."""

import json
import re
import shlex

import pytest
import yaml
from tiny_run import TINY_MODEL
from typer.testing import CliRunner

import trainers.reproduce as reproduce_module
from dataset_builders.hub import prepare
from tinymyo_hf.cli import app
from tinymyo_hf.semg_transformer.configuration_semg_transformer import SEMG_TRANSFORMER_PRESETS
from trainers.classification import ClassificationTask
from trainers.errors import RecipeError
from trainers.parsing import parse_recipe
from trainers.published import read_tables
from trainers.report import format_score
from trainers.reproduce import reproduce

TINYMYO_TABLES = [read_tables()[name] for name in ("gestures", "kinematics", "neuromotor")]
CORPUS = {"num_subjects": 4, "num_sessions": 1, "num_repetitions": 1, "window_length": 200, "stride": 200}
RECIPE = {
    "dataset": "synthetic",
    "dataset_config": CORPUS,
    "output_dir": "runs/unused",
    "model_config": TINY_MODEL,
    "num_train_epochs": 1,
    "report_to": "none",
    "baselines": False,
    "disable_tqdm": True,
    "seeds": [0, 1],
}


def test_published_figures_are_those_of_the_paper(shared_dir):
    papers = [path.read_text(encoding="utf-8") for path in sorted((shared_dir / "seeds").glob("001_*.txt"))]
    if not papers:
        pytest.skip("needs the text of the paper")
    lines = re.findall(r"^\| TinyMyo (?:- )?\(?(FS|FT)\)?,? ?(\d*) ?(?:ms)?[^|]*\|([^\n]*)\|$", papers[0], re.MULTILINE)
    in_paper = {}
    for setting, window, cells in lines:
        cells = [cell.strip() for cell in cells.split("|")]
        # The means and deviations of a row, which the text runs together: 81.941.22.
        figures = [cell for cell in cells if re.fullmatch(r"\d+\.\d+\.\d+", cell)]
        in_paper.setdefault((setting, window, len(figures)), []).append(figures)

    gestures, kinematics, neuromotor = TINYMYO_TABLES
    checked = 0
    for setting, window in ((s, w) for s in ("FS", "FT") for w in ("200", "1000")):
        suffix = "_ft" if setting == "FT" else ""
        names = [f"{corpus}_{window}{suffix}" for corpus in ("ninapro_db5", "epn612", "uci_emg")]
        assert [in_paper[setting, window, 9][0]] == [[c for name in names for c in run_together(gestures, name)]]
        assert in_paper[setting, window, 3][0] == run_together(kinematics, f"ninapro_db8_{window}{suffix}")
        checked += 4
    assert in_paper["FS", "", 1][0] == run_together(neuromotor, "gni")
    assert in_paper["FT", "", 1][0] == run_together(neuromotor, "gni_ft")
    assert checked + 2 == sum(len(table.rows) for table in TINYMYO_TABLES)


def run_together(table, row):
    """`["81.941.22", ...]`."""
    figures = table.rows[row].published
    return [format_score(column, figures[column.key]).replace(" ± ", "") for column in table.columns]


def test_published_figures_of_typing_are_those_of_the_paper(shared_dir):
    papers = [path.read_text(encoding="utf-8") for path in sorted((shared_dir / "seeds").glob("003_*.txt"))]
    if not papers:
        pytest.skip("needs the text of the paper")
    text = re.sub(r"</?(?:b|math)>|\$", "", papers[0])
    figures = r"([\d.]+) *\\pm *([\d.]+)"
    tables = read_tables()
    places = {"typing_sizes": ("Table 11: N", "Table 12: N"), "typing_distilled": ("Table 12: N", "Table 14:")}
    for table, (start, end) in places.items():
        printed = re.findall(rf"\t(\d+)\t(\d+)\t(\d+)\t{figures}", text.split(start)[1].split(end)[0])
        assert len(printed) == len(tables[table].rows) == 20
        for size, layers, parameters, mean, std in printed:
            row = tables[table].rows[f"{size}x{layers}"]
            assert row.published["cer"] == {"mean": float(mean), "std": float(std)}
            preset = f"semg-transformer-{size}x{layers}"
            assert f"--preset={preset}" in row.overrides and row.title.startswith(f"{size} x {layers}")
            h, layers = (SEMG_TRANSFORMER_PRESETS[preset][key] for key in ("hidden_size", "num_hidden_layers"))
            assert layers * (12 * h**2 + 13 * h) + 8 * h**2 + 167 * h + 82531 == int(parameters)
    personal = re.findall(rf"(Tiny|Small|Large)\t(Distil|Superv)\w+\tseed (.)\t\d+\t{figures}", text)
    assert len(personal) == len(tables["typing_personal"].rows) == 15
    for size, origin, start, mean, std in personal:
        name = f"{size.lower()}{'_distilled' if origin == 'Distil' else ''}_{start.lower()}"
        assert tables["typing_personal"].rows[name].published["cer"] == {"mean": float(mean), "std": float(std)}
    # Tables 2 and 3 print the same with fewer digits
    short = {}
    for cells in re.findall(rf"(?m)^.*\t(?:(TINY|SMALL|LARGE)).*\t[\d.]+M\t{figures}(?:\t{figures})?", text):
        short.setdefault(cells[0].lower(), []).append(cells[1:])
    for name, row in tables["typing"].rows.items():
        size, figure = name.split("_")[0], row.published["cer"]
        place = slice(2, 4) if "distilled" in name else slice(0, 2)
        assert any(
            cells[place][0]
            and abs(float(cells[place][0]) - figure["mean"]) <= 0.0501
            and abs(float(cells[place][1]) - figure["std"]) <= 0.0501
            for cells in short[size]
        ), (name, short)


def test_recipes_of_typing_are_there_with_the_seeds_of_the_paper():
    tables = read_tables()
    seeds = {"typing_sizes": 6, "typing_distilled": 3, "typing_personal": 3}
    for name, count in seeds.items():
        by_recipe = {row.recipe: row for row in tables[name].rows.values()}  # the last of each: reading takes long
        for row in by_recipe.values():
            arguments = parse_recipe(row.recipe, [*row.overrides, "--report_to", "none"])[2]
            assert len(arguments.seeds) == count, row
    assert {row.recipe for row in tables["typing"].rows.values()} == {
        f"emg2qwerty_{name}"
        for size in ("tiny", "small", "large")
        for name in (size, f"personal_{size}", f"distilled_{size}", f"personal_{size}_distilled")
    } - {"emg2qwerty_distilled_large", "emg2qwerty_personal_large_distilled"}


@pytest.mark.parametrize("name", [row.name for table in TINYMYO_TABLES for row in table.rows.values()])
def test_rows_have_recipes_with_five_seeds_and_the_windows_of_their_names(name):
    row = next(table.rows[name] for table in TINYMYO_TABLES if name in table.rows)
    model, data, arguments = parse_recipe(row.recipe, ["--report_to", "none"])
    assert arguments.seeds == [0, 1, 2, 3, 4]
    assert (model.model_name_or_path is not None) == name.endswith("_ft") == ("FT" in row.title)
    window = re.search(r"\d{3,4}(?=_|$)", name.removeprefix("epn612_"))
    if window:
        assert data.dataset_config["window_length"] == int(window.group())


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table file of the user's: a row that can run (with a field of its own), one without recordings, one without an
    encoder, one without a teacher, a broken one."""
    monkeypatch.setattr(ClassificationTask, "write_plots", classmethod(lambda *args: None))  # they take longer
    recipes = {
        "runs": RECIPE,
        "elsewhere": {**RECIPE, "dataset": "uci_emg", "dataset_config": {}},
        "pretrained": {"base": "runs.yaml", "model_name_or_path": str(tmp_path / "no checkpoint")},
        "taught": {
            "base": "runs.yaml", "task": "distillation", "student_task": "classification",
            "teacher_name_or_path": str(tmp_path / "no teacher"),
        },
        "broken": {"base": "runs.yaml", "learning_rat": 1},
    }  # fmt: skip
    for name, fields in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    rows = {
        name: {"title": f"Row {name}", "recipe": f"{name}.yaml", "published": {"accuracy": [90.0, 1.5]}}
        for name in recipes
    }
    rows["runs"]["overrides"] = {"weight_decay": 0.02}
    fields = {"title": "Mine", "source": "a paper", "metrics": {"accuracy": {"title": "Accuracy (%)", "scale": 100}}}
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump({"mine": {**fields, "rows": rows}}))
    return read_tables(tmp_path / "tables.yaml")["mine"]


def test_rows_are_measured_once_or_said_why_not(table, tmp_path, monkeypatch, capsys):
    results = reproduce(table, tmp_path / "out", seeds=2, command="tinymyo reproduce mine")
    rows = results["rows"]
    states = {name: row["state"] for name, row in rows.items()}
    assert states.pop("runs") == "measured" and states.pop("broken") == "failed"
    assert set(states.values()) == {"not run"}
    assert "recordings of uci_emg: pass --data-dir" in rows["elsewhere"]["reason"]
    assert "no checkpoint" in rows["pretrained"]["reason"] and "--pretrained" in rows["pretrained"]["reason"]
    assert "no teacher: train it first, as the recipe taught says" in rows["taught"]["reason"]
    assert "unknown field 'learning_rat'" in rows["broken"]["reason"]

    run = json.loads((tmp_path / "out/mine/runs/results.json").read_text())
    assert run["hyperparameters"]["weight_decay"] == 0.02
    scores = [seed["test"]["accuracy"] for seed in run["runs"]]
    mean = sum(scores) / 2
    std = abs(scores[0] - scores[1]) / 2**0.5
    assert rows["runs"]["measured"]["accuracy"] == pytest.approx({"mean": mean, "std": std, "count": 2})
    assert rows["runs"]["published"]["accuracy"] == {"mean": 0.9, "std": 0.015}
    line = f"| runs | 2 | 90.00 ± 1.50 | {100 * mean:.2f} ± {100 * std:.2f} |"
    report = (tmp_path / "out/mine/report.md").read_text()
    assert line in results["summary"] and line in report and "nobody measured them here" in report
    assert "| elsewhere | – | 90.00 ± 1.50 | – |" in report and " | runs --weight_decay=0.02 |" in report
    assert (tmp_path / "out/mine/comparison.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(reproduce_module, "run_recipe", lambda *args: pytest.fail("a finished row was run again"))
    again = reproduce(table, tmp_path / "out", seeds=2, command="tinymyo reproduce mine")
    assert again == results
    capsys.readouterr()
    others = reproduce(table, tmp_path / "out", only=["else*"])
    assert others["rows"]["runs"] == rows["runs"] and others["rows"]["broken"]["reason"] == "not asked for"
    assert "runs:" not in capsys.readouterr().out


def test_a_measured_row_outlives_an_attempt_that_fails(table, tmp_path, monkeypatch):
    only = {"only": ["runs"], "overrides": ["--num_train_epochs", "0.5"]}
    before = reproduce(table, tmp_path / "out", seeds=1, **only)["rows"]["runs"]
    assert before["settings"]["overrides"] == ["--num_train_epochs", "0.5"]
    after = reproduce(table, tmp_path / "out", seeds=1, only=["runs"])
    assert after["rows"]["runs"]["measured"] == before["measured"]
    assert "holds another run (num_train_epochs" in after["rows"]["runs"]["attempt"]
    assert "- runs: measured earlier; this time failed: " in after["summary"]
    assert "- runs: measured with --num_train_epochs 0.5" in after["summary"]


def test_where_corpora_are_looked_for(table, tmp_path, monkeypatch):
    """A folder with an archive, a mapping, and prepared folders that fit the recipe or do not."""
    asked = []
    results = {"test": {"accuracy": {"mean": 0.5, "std": None, "count": 1}}, "windows": {"test": 3}, "runs": []}
    results |= {"subjects": {"test": 1}, "test_split": "test", "environment": {"hardware": "CPU"}}
    results["runs"] = [{"train_seconds": 1.0}]

    def run(recipe, tokens, command):
        asked.append(tokens[tokens.index("0") + 1 :])
        return results

    monkeypatch.setattr(reproduce_module, "run_recipe", run)
    monkeypatch.setattr(reproduce_module, "write_report", lambda *args: None)
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/uci_emg.tar.xz").touch()
    (tmp_path / "map.yaml").write_text("uci_emg: corpora/uci_emg.tar.xz\n")
    prepared = prepare("synthetic", None, tmp_path / "prepared", **CORPUS)
    (tmp_path / "prepared.yaml").write_text(f"uci_emg: {prepared}\n")
    for number, place in enumerate(("corpora", "corpora/uci_emg.tar.xz", "map.yaml", "prepared.yaml")):
        done = reproduce(table, tmp_path / f"{number}", seeds=1, only=["elsewhere"], data_dir=tmp_path / place)
        assert done["rows"]["elsewhere"]["state"] == "measured"
    archive = str(tmp_path / "corpora/uci_emg.tar.xz")
    assert asked == [["--data_dir", archive]] * 3 + [["--dataset", str(prepared), "--dataset_config={}"]]

    (tmp_path / "elsewhere.yaml").write_text(
        yaml.safe_dump({**RECIPE, "dataset": "uci_emg"} | {"dataset_config": {"window_length": 1000}})
    )
    places = {"data_dir": tmp_path / "prepared.yaml", "only": ["elsewhere"], "seeds": 1}
    reason = reproduce(table, tmp_path / "out", **places)["rows"]["elsewhere"]["reason"]
    assert "prepared with window_length=200, the recipe says 1000" in reason
    (tmp_path / "empty").mkdir()
    reason = reproduce(table, tmp_path / "out", **places | {"data_dir": tmp_path / "empty"})["rows"]["elsewhere"][
        "reason"
    ]
    assert "there is none in" in reason
    with pytest.raises(RecipeError, match="no such file or folder"):
        reproduce(table, tmp_path / "out", data_dir=tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="table mine has no row none: choose from broken, elsewhere"):
        reproduce(table, tmp_path / "out", only=["none"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None, "sources": "x"}, "mine has the unknown field sources"),
        ({"title": "drop"}, "mine lacks title"),
        ({"rows": {}}, "rows: `name: value` lines are expected"),
        ({"rows": {"r": {"title": "R", "recipe": "x", "published": {"wer": 3}}}}, "wer is none of the table's metrics"),
        ({"rows": {"r": {"title": "R", "recipe": "x", "published": {"accuracy": "90 ± 1"}}}}, r"write \[mean, stand"),
        (
            {"rows": {"r": {"title": "R", "recipe": "x", "published": {}, "overrides": {"seeds": [1]}}}},
            "give a text or",
        ),
    ],
)
def test_tables_that_cannot_be_read(table, tmp_path, change, message):
    content = yaml.safe_load((tmp_path / "tables.yaml").read_text())
    content["mine"] |= change
    if change.get("title") == "drop":
        del content["mine"]["title"]
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match=message):
        read_tables(tmp_path / "tables.yaml")


def test_command_lists_tables_and_runs_rows(table, tmp_path):
    listing = CliRunner().invoke(app, ["reproduce"])
    assert "gestures: Hand gestures (arXiv:2512.15729, Table 6)" in listing.output
    assert re.search(r"uci_emg_1000_ft +published Accuracy \(%\) 97.23 ± 0.70", listing.output)
    unknown = CliRunner().invoke(app, ["reproduce", "none"])
    assert unknown.exit_code == 2 and "there is no table none: choose from gestures, neuromotor" in unknown.output

    out = tmp_path / "out"
    words = ["reproduce", "mine", "--only", "else*", "--only", "pre*", "--output", str(out), "--tables"]
    run = CliRunner().invoke(app, [*words, str(tmp_path / "tables.yaml"), "--bf16", "true"])
    assert run.exit_code == 0 and "| elsewhere | – | 90.00 ± 1.50 | – |" in run.output
    command = json.loads((out / "mine/results.json").read_text())["command"]
    given = ["tinymyo", *words, str(tmp_path / "tables.yaml"), "--bf16", "true"]
    assert sorted(shlex.split(command)) == sorted(given)
