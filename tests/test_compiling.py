import os
import subprocess
import sys
from pathlib import Path

LOOP = """
from boxless.compiling import compiled


@compiled
def half(number: int) -> float:
    return number / 2 + zero(number)


@compiled
def zero(number: int) -> float:
    return 0.0
"""


def run(folder: Path, **environment: str) -> str:
    (folder / "loop.py").write_text(LOOP)
    code = "import loop, numba; print(loop.half(3), numba.config.CACHE_DIR, bool(loop.half.stats.cache_path))"
    variables = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_machine_code_is_cached_beside_the_file(tmp_path: Path) -> None:
    assert run(tmp_path) == "1.5  True"
    assert any(file.suffix == ".nbc" for file in (tmp_path / "__pycache__").iterdir())


def test_without_a_folder_to_write_to_it_compiles_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").write_text("no folder")
    (tmp_path / "home").write_text("no folder")
    home = str(tmp_path / "home")
    assert run(tmp_path, HOME=home, XDG_CACHE_HOME=home) == "1.5  False"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["__pycache__", "home", "loop.py"]
