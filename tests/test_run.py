"""One whole iteration by its command, in this process, on a tiny real model: every way in which it can end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from judged import fill_corrections, fill_ledger, fill_thumbs
from tiny import save_tiny_base

from memory.database import open_database
from memory.ledger import Ledger
from memory.runs import Runs
from training.base import identity_of
from training.execution import EXIT_CODES
from training.gate import Verdict
from training.iteration import served_version
from training.metrics import read_metrics
from training.registry import Registry
from training.report import EvaluationReport
from training.run import main
from training.views import preference_view, read_feedback

ROOT = Path(__file__).resolve().parent.parent
LENIENT = [
    "--min-win-rate",
    "0",
    "--min-preference-accuracy",
    "0",
    "--max-fluency-drop",
    "99",
    "--max-kl",
    "9999",
]
LENIENT += [
    "--max-implausible",
    "1",
    "--max-forgotten",
    "1",
    "--min-on-topic",
    "0",
    "--max-degenerate",
    "1",
    "--max-identical",
    "1",
    "--max-repetition",
    "1",
    "--min-heldout-pairs",
    "2",
]
QUICK = ["--quantization", "none", "--context-tokens", "256", "--max-new-tokens", "8", "--epochs", "1"]
QUICK += ["--min-steps", "4", "--eval-prompts", "4", "--lora-rank", "2", "--min-comparisons", "12"]
QUICK += ["--learning-rate", "0.01"]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return save_tiny_base(tmp_path_factory.mktemp("base"))


class Studio:
    """A data folder with a ledger in it, as the command finds it."""

    def __init__(self, folder, base):
        self.folder, self.base = folder, base
        self.database = open_database(f"sqlite:///{folder / 'thumbprint.db'}")
        self.ledger, self.runs = Ledger(self.database), Runs(self.database)
        self.registry = Registry(folder / "adapters")

    def flags(self, *others):
        return ["--data-dir", str(self.folder), "--model", str(self.base), *QUICK, *others]

    def run(self, *others):
        return main(self.flags(*others))


@pytest.fixture
def studio(tmp_path, base_folder):
    made = Studio(tmp_path / "data", base_folder)
    yield made
    made.database.close()


def test_from_feedback_to_a_published_version_and_on_from_there(studio, base_folder):
    fill_ledger(studio.database, comparisons=30)
    view = preference_view(read_feedback(studio.ledger), share=0.2)
    assert studio.run(*LENIENT) == EXIT_CODES["published"]

    (run,) = studio.runs.list()
    assert (run.state, run.version, run.progress, run.parent_version) == ("published", "v0001", 1.0, "base")
    assert studio.runs.served().version == served_version(studio.runs) == "v0001"
    assert studio.runs.served().actor == "gate"

    version = studio.registry.verify("v0001", base_identity=identity_of(base_folder))
    manifest = version.manifest
    assert manifest.parent == "base"
    assert manifest.feedback_ids == sorted({row.feedback_id for row in view.train})
    assert not {row.feedback_id for row in view.heldout} & set(manifest.feedback_ids)
    assert manifest.settings["learning_rate"] == 0.01
    assert not {"data_dir", "database_url", "run_id"} & set(manifest.settings)
    assert manifest.report["evaluation"]["samples"] == [], "people's words do not travel with an adapter"
    assert manifest.canary_logprobs != manifest.base_canary_logprobs

    folder = Path(run.folder)
    saved = json.loads((folder / "report.json").read_text())
    report, verdict = EvaluationReport.from_dict(saved["evaluation"]), Verdict.from_dict(saved["verdict"])
    assert (report.training_pairs, report.heldout_pairs) == (len(view.train), len(view.heldout))
    assert verdict.promote
    assert run.message == verdict.summary
    metrics = read_metrics(folder / "metrics.jsonl")
    assert [line["phase"] for line in metrics if "loss" in line] == ["train"] * 4
    assert {"load", "train", "restrain", "evaluate", "gate", "publish"} == {line["phase"] for line in metrics}
    progress = [line["progress"] for line in metrics]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert "Training on" in (folder / "log.txt").read_text()

    assert studio.run(*LENIENT, "--start-from", "previous") == EXIT_CODES["published"]
    assert studio.runs.served().version == "v0002"
    assert studio.registry.get("v0002").manifest.parent == "v0001"
    assert studio.run(*LENIENT) == EXIT_CODES["published"]
    third = studio.registry.get("v0003").manifest
    assert third.parent == "base", "the default starts from the base on the whole ledger"
    assert third.report["evaluation"]["served_version"] == "v0002", "and is compared with what is served"


def test_a_candidate_that_fails_the_gate_is_kept_but_not_served(studio):
    fill_ledger(studio.database, comparisons=30)
    assert studio.run(*LENIENT, "--max-kl", "0.0000001") == EXIT_CODES["rejected"]
    (run,) = studio.runs.list()
    assert run.state == "rejected"
    assert "drifted too far from the base" in run.message
    assert studio.runs.served() is None
    assert studio.registry.versions() == []
    assert (Path(run.folder) / "candidate" / "adapter_model.safetensors").is_file()
    assert not json.loads((Path(run.folder) / "report.json").read_text())["verdict"]["promote"]


@pytest.mark.parametrize(
    ("fill", "asked", "method", "kind"),
    [
        (lambda database: fill_thumbs(database, thumbs=60), "auto", "kto", "rating:"),
        (lambda database: fill_corrections(database, corrections=30), "auto", "dpo", "correction:"),
        (lambda database: fill_corrections(database, corrections=30), "sft", "sft", "correction:"),
    ],
    ids=["thumbs", "corrections", "imitated corrections"],
)
def test_thumbs_or_corrections_alone_retrain_and_the_gate_has_its_say(studio, fill, asked, method, kind):
    fill(studio.database)
    assert studio.run(*LENIENT, "--method", asked) == EXIT_CODES["published"]
    (run,) = studio.runs.list()
    manifest = studio.registry.get("v0001").manifest
    assert manifest.method == method
    assert manifest.feedback_ids
    assert all(name.startswith(kind) for name in manifest.feedback_ids)
    report = EvaluationReport.from_dict(
        json.loads((Path(run.folder) / "report.json").read_text())["evaluation"]
    )
    assert report.heldout_pairs >= 2
    assert report.taste_accuracy > 0.9, "the judge found the taste in them"
    assert report.preference_accuracy is not None
    assert report.win_rate_served is not None
    log = (Path(run.folder) / "log.txt").read_text()
    assert (f"Chose {method.upper()}, which" in log) is (asked == "auto")
    said = [line["message"] for line in read_metrics(Path(run.folder) / "metrics.jsonl")]
    assert any(f"Chose {method.upper()}, which" in message for message in said) is (asked == "auto")


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        ("kto", "24 more thumbs needed: 0 of 24 so far"),
        ("sft", "12 more corrections or liked replies needed: 0 of 12 so far"),
        ("rloo", "12 more decided comparisons needed"),
        ("auto", "12 more decided comparisons needed"),
    ],
)
def test_each_method_says_what_it_is_missing(studio, method, missing):
    assert studio.run(*LENIENT, "--method", method) == EXIT_CODES["refused"]
    assert missing in studio.runs.list()[0].message


@pytest.mark.parametrize(
    ("comparisons", "missing"), [(0, "12 more decided comparisons"), (9, "3 more decided")]
)
def test_too_little_data_is_refused_with_how_much_is_missing(studio, comparisons, missing, capsys):
    fill_ledger(studio.database, comparisons=comparisons)
    assert studio.run(*LENIENT) == EXIT_CODES["refused"]
    (run,) = studio.runs.list()
    assert run.state == "refused"
    assert missing in run.message
    assert missing in capsys.readouterr().out
    assert studio.runs.active() is None


def test_a_refusal_loads_no_model_library(studio):
    code = (
        "import sys; from training.run import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'trl', 'transformers'} & sys.modules.keys())); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *studio.flags()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_CODES["refused"], done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_run_cancelled_before_it_began_is_cancelled(studio):
    fill_ledger(studio.database, comparisons=30)
    run = studio.runs.queue("dpo", "base", studio.folder / "runs", "test")
    studio.runs.request_cancel(run.id)
    assert studio.run("--run-id", run.id) == EXIT_CODES["cancelled"]
    assert studio.runs.get(run.id).state == "cancelled"


def test_a_run_cancelled_while_training_leaves_nothing(studio, monkeypatch):
    fill_ledger(studio.database, comparisons=30)
    run = studio.runs.queue("dpo", "base", studio.folder / "runs", "test")
    monkeypatch.setattr("training.journal._EVERY_SECONDS", 0.0)
    advance = Runs.update

    def cancel_at_the_second_step(self, run_id, *, message=None, **values):
        if message and "step 2 of" in message:
            studio.runs.request_cancel(run.id)
        advance(self, run_id, message=message, **values)

    monkeypatch.setattr(Runs, "update", cancel_at_the_second_step)
    assert studio.run("--run-id", run.id, *LENIENT) == EXIT_CODES["cancelled"]
    ended = studio.runs.get(run.id)
    assert (ended.state, ended.message) == (
        "cancelled",
        "Cancelled on request. What is served has not changed.",
    )
    trained = [line["step"] for line in read_metrics(Path(run.folder) / "metrics.jsonl") if "loss" in line]
    assert trained == [1, 2]
    assert studio.registry.versions() == []


def test_a_failure_is_told_with_what_to_do(studio, tmp_path):
    fill_ledger(studio.database, comparisons=30)
    assert studio.run("--model", str(tmp_path / "nowhere")) == EXIT_CODES["failed"]
    (run,) = studio.runs.list()
    assert run.state == "failed"
    assert "Set THUMBPRINT_MODEL" in run.message
    assert "log.txt" in run.message
    assert "Traceback" in (Path(run.folder) / "log.txt").read_text()


def test_a_loss_that_comes_apart_is_told_with_what_to_do(studio):
    fill_ledger(studio.database, comparisons=30)
    assert studio.run("--learning-rate", "1e30", "--min-steps", "20") == EXIT_CODES["failed"]
    (run,) = studio.runs.list()
    assert "Lower learning_rate" in run.message
    assert studio.registry.versions() == []


def test_two_runs_at_once_are_not_begun(studio, capsys):
    studio.runs.queue("dpo", "base", studio.folder / "runs", "test")
    assert studio.run() == EXIT_CODES["failed"]
    assert "already under way" in capsys.readouterr().err


def test_a_run_that_has_ended_is_not_carried_out_again(studio, capsys):
    assert studio.run() == EXIT_CODES["refused"]
    (run,) = studio.runs.list()
    assert studio.run("--run-id", run.id) == EXIT_CODES["failed"]
    assert "has ended already (refused" in capsys.readouterr().err
    assert studio.run("--run-id", "nobody") == EXIT_CODES["failed"]
    assert "no run 'nobody'" in capsys.readouterr().err


def test_an_adapter_of_another_base_is_not_continued_but_the_base_is_compared_with(studio, tmp_path):
    fill_ledger(studio.database, comparisons=30)
    assert studio.run(*LENIENT) == EXIT_CODES["published"]
    other = save_tiny_base(tmp_path / "other", seed=5)
    assert studio.run(*LENIENT, "--model", str(other), "--start-from", "previous") == EXIT_CODES["published"]
    manifest = studio.registry.get("v0002").manifest
    assert (manifest.parent, manifest.report["evaluation"]["served_version"]) == ("base", "base")
    assert manifest.base_identity == identity_of(other)


def test_wrong_settings_are_named(capsys):
    assert main(["--learning-rate", "-1"]) == EXIT_CODES["failed"]
    assert "learning_rate" in capsys.readouterr().err


def test_help_explains_the_settings_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("--run-id", "--beta", "--min-win-rate", "3 rejected by the gate", "130 cancelled"):
        assert words in printed
