"""The house keeps its shape: floors import only downwards, heavy libraries stay on their floor, files stay readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["memory", "training", "studio", "app"]
"""Bottom to top. A module may import from its own floor and from those below."""
OWNED = {
    "gradio": {"studio", "app"},
    "trl": {"training"},
    "torch": {"training", "studio"},
    "transformers": {"training", "studio"},
    "peft": {"training", "studio"},
    "sqlalchemy": {"memory"},
    "alembic": {"memory"},
}
"""The floors on which a library may be imported."""
NAMELESS = {"utils", "common", "helpers", "misc"}


def modules() -> list[Path]:
    found = [ROOT / "app.py"]
    for floor in ("memory", "training", "studio"):
        found += sorted((ROOT / floor).rglob("*.py"))
    return found


def floor_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    floor = FLOORS.index(floor_of(path))
    above = {name for name in imported(path) if name.split(".")[0] in FLOORS[floor + 1 :]}
    assert not above, f"{path.relative_to(ROOT)} imports from a floor above it: {sorted(above)}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_on_their_floor(path: Path):
    roots = {name.split(".")[0] for name in imported(path)}
    astray = {name for name in roots & OWNED.keys() if floor_of(path) not in OWNED[name]}
    assert not astray, f"{path.relative_to(ROOT)} imports {sorted(astray)}, which belong to another floor"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_opens_with_its_contract_and_fits_in_the_head(path: Path):
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no contract at its head"
    assert text.count("\n") <= 300, f"{path.relative_to(ROOT)} is longer than 300 lines: is it two rooms?"
    assert path.stem not in NAMELESS, f"{path.relative_to(ROOT)}: the name says nothing"


def loaded_after(statement: str) -> set[str]:
    """Top-level names in sys.modules after running `statement` in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_launcher_loads_no_model_library():
    assert not loaded_after("import studio.launch") & {"torch", "trl", "transformers", "peft"}


def test_memory_stands_alone():
    every_module = "import " + ", ".join(
        f"memory.{path.stem}" for path in (ROOT / "memory").glob("[a-z]*.py")
    )
    assert not loaded_after(every_module) & {"torch", "trl", "transformers", "gradio", "training", "studio"}


def test_serving_does_not_load_the_trainer():
    assert "trl" not in loaded_after("import studio.build, studio.policy.local, training.registry")


def test_the_top_level_is_what_was_asked_for():
    assert (ROOT / "requirements.txt").is_file()
    assert (ROOT / "README.md").is_file()
    assert not (ROOT / "tests" / "__init__.py").exists(), "tests are flat modules, not a package"
    app = (ROOT / "app.py").read_text(encoding="utf-8")
    assert app.count("\n") <= 40, "app.py is the composition root; forty lines are enough"
