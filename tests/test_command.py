"""The training scripts as a person runs them: on the ledger and on datasets, with a board, and told what is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from judged import fill_ledger
from test_run import LENIENT, QUICK
from test_sources import pairs, write_lines
from tiny import save_tiny_base

from memory.database import open_database
from memory.runs import Runs
from training.base import identity_of
from training.command import main
from training.curves import curves_svg, round_ticks
from training.execution import EXIT_CODES
from training.metrics import MetricsWriter
from training.registry import Registry
from training.tracking import BoardUnavailable, check_board, reporting_to


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def flags(data, base_folder, *others):
    return ["--data-dir", str(data), "--model", str(base_folder), *QUICK, *LENIENT, *others]


def runs_of(data):
    return Runs(open_database(f"sqlite:///{data / 'thumbprint.db'}"))


def dataset(folder, count=30):
    """A file of pairs in which the liked reply ends in a question, two bad lines among them."""
    rows = pairs(count)
    for row in rows:
        row["chosen"] += " Is that all?"
    path = folder / "pairs.jsonl"
    write_lines(path, [*rows, {"prompt": "x", "chosen": True, "rejected": "y"}])
    path.write_text(path.read_text() + "{oops\n")
    return path


def test_from_a_dataset_to_a_version_that_is_served_only_on_request(tmp_path, base_folder, capsys):
    data, path = tmp_path / "data", dataset(tmp_path)
    words = flags(data, base_folder, "--dataset", str(path), "--report-to", "tensorboard")
    assert main("dpo", words) == EXIT_CODES["published"]
    runs, registry = runs_of(data), Registry(data / "adapters")
    (run,) = runs.list()
    assert (run.state, run.version, run.method) == ("published", "v0001", "dpo")
    assert runs.served() is None
    assert "v0001 is published and not served" in run.message
    manifest = registry.verify("v0001", base_identity=identity_of(base_folder)).manifest
    assert set(manifest.feedback_ids) < {f"comparison:pairs.jsonl:{n}" for n in range(1, 31)}
    assert str(tmp_path) not in json.dumps(manifest.settings)

    folder = Path(run.folder)
    report = (folder / "report.md").read_text()
    for words_in_it in (
        "# dpo: published as v0001",
        "Read 30 pairs.",
        "Left out 1: chosen is a boolean, not text or messages (pairs.jsonl:31).",
        "Left out 1: not JSON (pairs.jsonl:32).",
        "![Loss](loss.svg)",
        "| passed | check | why |",
        "| learning_rate | `0.01` |",
    ):
        assert words_in_it in report
    for picture in re.findall(r"\]\((.*?\.svg)\)", report):
        assert (folder / picture).read_text().startswith("<svg ")
    assert "Read 30 pairs." in capsys.readouterr().out
    assert_board_shows(folder)

    assert (
        main("dpo", flags(data, base_folder, "--dataset", str(path), "--promote")) == EXIT_CODES["published"]
    )
    assert runs.served().version == "v0002"


def assert_board_shows(folder):
    """TensorBoard's own reader finds every step's loss, and the same numbers as the metrics file."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    shown = {event.step: event.value for event in events.Scalars("loss")}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    written = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert shown == pytest.approx(written)
    assert len(shown) == 4
    assert "rewards/margins" in events.Tags()["scalars"]


@pytest.mark.slow
def test_prompts_alone_go_beside_the_ledger(tmp_path, base_folder):
    data = tmp_path / "data"
    database = open_database(f"sqlite:///{data / 'thumbprint.db'}")
    fill_ledger(database, comparisons=30)
    database.close()
    path = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"Tell me of {n}."} for n in range(3)])
    words = ["--ppo-iterations", "1", "--rollout-size", "8", "--ppo-epochs", "1", "--judged-pairs", "0"]
    words += ["--reward-learning-rate", "0.01", "--min-steps", "20", "--dataset", path]
    assert main("ppo", flags(data, base_folder, *words)) == EXIT_CODES["published"]
    (version,) = Registry(data / "adapters").versions()
    assert {name.split(":")[0] for name in version.manifest.feedback_ids} == {"comparison"}


def test_demonstrations_alone_are_learned_from_and_not_published(tmp_path, base_folder):
    """Nothing says what would be worse, so nothing can say whether the result is better."""
    rows = [
        {"messages": [{"role": "user", "content": f"Of {n}?"}, {"role": "assistant", "content": f"Yes {n}."}]}
        for n in range(20)
    ]
    words = flags(tmp_path / "data", base_folder, "--dataset", write_lines(tmp_path / "chats.jsonl", rows))
    assert main("sft", words) == EXIT_CODES["rejected"]
    (run,) = runs_of(tmp_path / "data").list()
    assert "Too little to examine it by: 0 pairs kept aside" in run.message
    assert (Path(run.folder) / "candidate" / "adapter_model.safetensors").is_file()
    assert Registry(tmp_path / "data" / "adapters").versions() == []


@pytest.mark.parametrize(
    ("method", "rows", "said"),
    [
        ("dpo", [{"prompt": "a", "completion": "b", "label": True}] * 9, "dpo expects pairs"),
        ("kto", [{"review": "fine"}], "None of 1 rows can be used"),
        ("sft", [], "holds no rows"),
    ],
)
def test_a_dataset_that_cannot_be_learned_from_begins_no_run(
    tmp_path, base_folder, capsys, method, rows, said
):
    path = write_lines(tmp_path / "rows.jsonl", rows)
    assert main(method, flags(tmp_path / "data", base_folder, "--dataset", path)) == EXIT_CODES["failed"]
    assert said in capsys.readouterr().err
    assert runs_of(tmp_path / "data").list() == []


@pytest.mark.parametrize(
    ("method", "rows", "said"),
    [
        ("dpo", pairs(5), "7 more decided comparisons needed: 5 of 12"),
        (
            "kto",
            [{"prompt": f"Of {n}?", "completion": f"Yes {n}.", "label": True} for n in range(60)],
            "6 more thumbs down needed: 0 of 6",
        ),
    ],
)
def test_too_little_or_one_sided_data_is_refused_with_what_is_missing(
    tmp_path, base_folder, capsys, method, rows, said
):
    path = write_lines(tmp_path / "rows.jsonl", rows)
    assert main(method, flags(tmp_path / "data", base_folder, "--dataset", path)) == EXIT_CODES["refused"]
    assert said in capsys.readouterr().out
    (run,) = runs_of(tmp_path / "data").list()
    assert (run.state, said in run.message) == ("refused", True)
    assert said in (Path(run.folder) / "report.md").read_text(), "a run that ended early has a report too"


def test_a_board_that_is_not_installed_is_told_before_anything_begins(
    tmp_path, base_folder, capsys, monkeypatch
):
    monkeypatch.setattr("training.tracking.find_spec", lambda name: None)
    assert main("dpo", flags(tmp_path / "data", base_folder, "--report-to", "wandb")) == EXIT_CODES["failed"]
    assert "pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    check_board("none")
    with (
        pytest.raises(BoardUnavailable, match="trackio"),
        reporting_to("trackio", project="p", name="n", folder=tmp_path, settings={}),
    ):
        pass


@pytest.mark.parametrize("board", ["trackio", "wandb"])
def test_a_board_gets_each_step_once_and_nothing_else(tmp_path, monkeypatch, board):
    """Both have the same three calls, here recorded by a module of that name."""
    calls = []
    module = ModuleType(board)
    module.init = lambda **given: calls.append(("init", given))
    module.log = lambda figures, step: calls.append(("log", figures, step))
    module.finish = lambda: calls.append(("finish",))
    monkeypatch.setitem(sys.modules, board, module)
    monkeypatch.setattr("training.tracking.find_spec", lambda name: module)
    with (
        reporting_to(board, project="p", name="n", folder=tmp_path, settings={"beta": 0.1}) as listen,
        MetricsWriter(tmp_path / "metrics.jsonl", clock=lambda: 1.0, listen=listen) as metrics,
    ):
        metrics.write("load", progress=0.1, message="Reading")
        metrics.write("train", step=1, total_steps=2, progress=0.5, loss=0.7, message="step 1")
        metrics.write("train", step=2, progress=0.6, loss=float("nan"), **{"rewards/margins": 0.2})
        metrics.write("evaluate", progress=0.9, message="Examining")
    assert calls == [
        ("init", {"project": "p", "name": "n", "config": {"beta": 0.1}}),
        ("log", {"progress": 0.5, "loss": 0.7}, 1),
        ("log", {"progress": 0.6, "rewards/margins": 0.2}, 2),
        ("finish",),
    ]


def test_a_board_that_fails_stops_no_training(tmp_path, base_folder, monkeypatch, capsys, caplog):
    """One that cannot begin a run is told, and the run is over; one that fails later is told in the log."""

    class Error(Exception):
        pass

    def fail(*_, **__):
        raise Error("no network")

    module = ModuleType("wandb")
    module.Error, module.init, module.log, module.finish = Error, fail, fail, lambda: None
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("training.tracking.find_spec", lambda name: module)
    path = str(dataset(tmp_path))
    words = flags(tmp_path / "data", base_folder, "--dataset", path, "--report-to", "wandb")
    assert main("dpo", words) == EXIT_CODES["failed"]
    assert "wandb could not begin a run (no network)" in capsys.readouterr().err
    (run,) = runs_of(tmp_path / "data").list()
    assert run.state == "failed"

    module.init = lambda **_: None
    with reporting_to("wandb", project="p", name="n", folder=tmp_path, settings={}) as listen:
        listen({"phase": "train", "time": 1.0, "step": 3, "loss": 0.5})
    assert "wandb did not take step 3: no network" in caplog.text


def test_help_explains_the_script_and_shows_a_right_row(capsys):
    with pytest.raises(SystemExit):
        main("kto", ["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("python -m training.kto --resume", "--report-to", '"label": true', "--beta", "4 refused"):
        assert words in printed


def test_another_method_and_wrong_settings_are_named(capsys):
    assert main("dpo", ["--method", "kto"]) == EXIT_CODES["failed"]
    assert "python -m training.kto" in capsys.readouterr().err
    assert main("dpo", ["--save-steps", "-1"]) == EXIT_CODES["failed"]
    assert "save_steps" in capsys.readouterr().err


def test_a_picture_holds_its_curves_on_round_numbers():
    picture = curves_svg({"a<b": [(1, 0.0), (2, 1.0)], "one point": [(1, 3.0)]}, title="Loss & more")
    assert picture.count("<polyline") == 1
    assert "a&lt;b" in picture
    assert "Loss &amp; more" in picture
    # y: 0 at the bottom (260), 1 at the top (56); x: from 64 to 624.
    assert 'points="64.0,260.0 624.0,56.0"' in picture
    assert curves_svg({"nothing": []}, title="x") == ""


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.5, 1]),
        (0.1, 0.74, [0, 0.2, 0.4, 0.6, 0.8]),
        (3.0, 3.0, [2.5, 3, 3.5]),
        (-7, 12, [-10, -5, 0, 5, 10, 15]),
    ],
)
def test_ticks_are_round_and_hold_what_there_is(low, high, ticks):
    found = round_ticks(low, high)
    assert found == pytest.approx(ticks)
    assert found[0] <= low <= high <= found[-1]
