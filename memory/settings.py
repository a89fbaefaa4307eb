"""Where things are kept: the settings of the bottom floor, and how every floor's settings are read.

Precedence, strongest last: field defaults < preset < ``thumbprint.toml`` < ``THUMBPRINT_*`` environment < flags.
Each setting is documented by the docstring under its field, once; ``--help`` and the docs are made from it. This module
knows nothing of models or pages: the upper floors extend `StorageSettings` with their own fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

SettingsT = TypeVar("SettingsT", bound="StorageSettings")


class StorageSettings(BaseSettings):
    """Settings that memory needs."""

    model_config = SettingsConfigDict(
        env_prefix="THUMBPRINT_",
        toml_file="thumbprint.toml",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="ignore",
        frozen=True,
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    data_dir: Path = Path("data")
    """Folder for the ledger, the adapters and the training runs."""

    database_url: str = ""
    """SQLAlchemy URL of the ledger, such as postgresql+psycopg://user@host/name. Empty: SQLite inside data_dir."""

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def resolved_database_url(self) -> str:
        """The URL to open: the one given, or SQLite at ``data_dir/thumbprint.db``."""
        return self.database_url or f"sqlite:///{self.data_dir / 'thumbprint.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, strongest first (flags are added in front by pydantic-settings)."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls), _Preset(settings_cls)


class _Preset(PydanticBaseSettingsSource):
    """The values of the chosen preset, weaker than everything a person set, stronger than the field defaults."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        presets = getattr(self.settings_cls, "presets", {})
        if not presets:
            return {}
        field = self.settings_cls.model_fields["preset"]
        name = self.current_state.get("preset", field.default)
        if name not in presets:
            raise ValueError(f"Preset is {name!r}; expected one of {', '.join(presets)}.")
        return dict(presets[name])


def load_settings(
    settings: type[SettingsT], flags: Sequence[str] | None = None, **overrides: Any
) -> SettingsT:
    """Read `settings` from every source. `flags` are command-line words (None: no flags are read).

    Raises `SystemExit` for ``--help`` and unknown flags, `pydantic.ValidationError` for values out of range.
    """
    given: dict[str, Any] = {} if flags is None else {"_cli_parse_args": list(flags)}
    return settings(**given, **overrides)
