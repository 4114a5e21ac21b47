"""The order of the rooms, and what an import may cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from twofile.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("datasets", "llguidance", "numpy", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` are loaded after running `code` in a new process."""
    out = python(f"import sys\n{code}\nprint('|', *(name for name in {names!r} if name in sys.modules))")
    return out.rpartition("|")[2].split()


def test_rooms_import_only_from_floors_below() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_no_room() -> None:
    assert loaded("import twofile", (*HEAVY, "click", "twofile.engine", "twofile.params")) == []


def test_public_names_are_sorted_and_there() -> None:
    import twofile

    assert list(twofile.__all__) == sorted(twofile.__all__)
    for name in twofile.__all__:
        assert getattr(twofile, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = twofile.nonsense


def test_the_core_loads_no_training_library() -> None:
    """Every module below and beside train, as the commands import them: with the core's dependencies alone."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("cli", "engine", "evaluate", "params")
        for path in sorted((ROOT / "twofile" / room).glob("*.py"))
    ]
    training = tuple(name for name in HEAVY if name not in ("llguidance", "numpy"))
    assert loaded("import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in modules), training) == []


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["chat", "--help"], ["run", "--help"], ["train", "--help"]]
)
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    code = f"""
from twofile.cli.main import main
try:
    main({args!r})
except SystemExit as exit:
    assert exit.code == 0
"""
    assert loaded(code, (*HEAVY, "jinja2", "huggingface_hub", "gguf", "rich")) == []


def test_every_command_is_where_the_table_says() -> None:
    from importlib import import_module

    for name, (module, _) in COMMANDS.items():
        assert getattr(import_module(module), f"{name}_command").name == name
