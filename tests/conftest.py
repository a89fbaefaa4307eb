"""What every test stands on: offline, no telemetry, no settings of the person who runs it, no access to real data."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models are slower on several threads, and much slower on cores that others use as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [key for key in os.environ if key.startswith("THUMBPRINT_") and key != "THUMBPRINT_TEST_DATA"]:
    del os.environ[name]

import pytest  # noqa: E402

pytest.register_assert_rewrite("browsing", "postgres")


@pytest.fixture(autouse=True)
def data_of_its_own(tmp_path, monkeypatch):
    """Each test's default data folder is its own temporary one, so that none can touch ``./data``."""
    monkeypatch.setenv("THUMBPRINT_DATA_DIR", str(tmp_path / "data"))
