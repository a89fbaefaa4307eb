"""Thumbprint: `python app.py` opens the studio; `python app.py --help` lists every setting.

The composition root, and the entry of a Hugging Face Space.
"""

from __future__ import annotations

import sys

from memory.settings import load_settings
from studio.launch import launch
from studio.settings import StudioSettings

if __name__ == "__main__":
    sys.exit(launch(load_settings(StudioSettings, sys.argv[1:])))
