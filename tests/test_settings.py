"""Settings: who wins, what a preset changes, what is refused, and that help is complete."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from memory.settings import StorageSettings, load_settings
from studio.settings import StudioSettings, settings_page
from training.settings import REPOSITORY, TrainingSettings


def test_precedence_is_default_preset_toml_environment_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        load_settings(StudioSettings, []).learning_rate
        == StudioSettings.model_fields["learning_rate"].default
    )
    assert load_settings(StudioSettings, ["--preset", "small"]).learning_rate == 1e-4
    (tmp_path / "thumbprint.toml").write_text('preset = "small"\nlearning_rate = 0.003\nport = 8001\n')
    assert load_settings(StudioSettings, []).learning_rate == 0.003
    monkeypatch.setenv("THUMBPRINT_LEARNING_RATE", "0.004")
    assert load_settings(StudioSettings, []).learning_rate == 0.004
    chosen = load_settings(StudioSettings, ["--learning-rate", "0.005"])
    assert (chosen.learning_rate, chosen.port, chosen.preset) == (0.005, 8001, "small")


def test_preset_from_the_environment_sets_the_model(monkeypatch):
    monkeypatch.setenv("THUMBPRINT_PRESET", "gpu")
    assert load_settings(TrainingSettings).model == "Qwen/Qwen2.5-7B-Instruct"
    monkeypatch.setenv("THUMBPRINT_MODEL", "somewhere/else")
    assert load_settings(TrainingSettings).model == "somewhere/else"


@pytest.mark.parametrize("preset", sorted(TrainingSettings.presets))
def test_every_shipped_preset_loads(preset):
    assert load_settings(StudioSettings, ["--preset", preset]).preset == preset


def test_pairs_of_settings_are_checked_with_both_names():
    with pytest.raises(ValidationError, match="max_new_tokens is 500 and context_tokens 400"):
        load_settings(TrainingSettings, ["--max-new-tokens", "500", "--context-tokens", "400"])


def test_unknown_flag_and_wrong_value_are_refused(capsys):
    with pytest.raises(SystemExit):
        load_settings(StudioSettings, ["--no-such-setting", "1"])
    with pytest.raises(ValidationError, match="heldout_share"):
        load_settings(StudioSettings, ["--heldout-share", "2"])


def test_help_names_and_explains_every_setting(capsys):
    with pytest.raises(SystemExit):
        load_settings(StudioSettings, ["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for name, field in StudioSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in printed
        assert field.description, f"{name} is not documented"
        assert field.description.split(". ")[0][:30] in printed


def test_the_database_defaults_to_sqlite_in_the_data_folder(tmp_path):
    settings = StorageSettings(data_dir=tmp_path)
    assert settings.resolved_database_url == f"sqlite:///{tmp_path / 'thumbprint.db'}"
    assert StorageSettings(database_url="postgresql+psycopg://h/x").resolved_database_url.endswith("/x")


def test_the_settings_page_is_current():
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run `python -m studio.settings > docs/settings.md`"
