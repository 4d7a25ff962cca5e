"""Importing the package changes nothing in the process, and modules import each other in one direction."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import boxless

SCRIPT = """
import importlib, json, logging, pkgutil, sys, warnings

def import_everything():
    import boxless
    for module in pkgutil.walk_packages(boxless.__path__, "boxless."):
        importlib.import_module(module.name)
    return sorted(name for name in sys.modules if name.partition(".")[0] == "boxless")

# Once for the other packages, which may change what they like, and once more for the modules of Boxless alone.
names = import_everything()
for name in names:
    del sys.modules[name]
import cv2, torch
warnings.resetwarnings()
cv2.setNumThreads(3)
torch.set_num_threads(3)
torch.manual_seed(7)
random = torch.get_rng_state()
logging.getLogger().setLevel(logging.ERROR)
handlers = list(logging.getLogger().handlers)
assert import_everything() == names
print(json.dumps({
    "modules": len(names),
    "warning filters": len(warnings.filters),
    "OpenCV's threads": cv2.getNumThreads(),
    "torch's threads": torch.get_num_threads(),
    "random state kept": bool(torch.equal(torch.get_rng_state(), random)),
    "gradients": torch.is_grad_enabled(),
    "level of the root logger": logging.getLogger().level,
    "handlers kept": logging.getLogger().handlers == handlers,
    "own handlers": len(logging.getLogger("boxless").handlers),
    "own level": logging.getLogger("boxless").level,
}))
"""


def test_importing_every_module_changes_no_global_state():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    state = json.loads(done.stdout)
    assert state.pop("modules") > 80
    assert state == {
        "warning filters": 0,
        "OpenCV's threads": 3,
        "torch's threads": 3,
        "random state kept": True,
        "gradients": True,
        "level of the root logger": 40,
        "handlers kept": True,
        "own handlers": 0,
        "own level": 0,
    }


def test_modules_import_each_other_in_one_direction():
    """Imports within functions count, as they hide circles; those of types alone do not."""
    root = Path(boxless.__file__).parent
    files = {".".join(file.relative_to(root.parent).with_suffix("").parts): file for file in root.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in files.items()}
    imported = dict[str, set[str]]()
    for name, file in modules.items():
        tree = ast.parse(file.read_text())
        tests = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        types = {one for node in tests if "TYPE_CHECKING" in ast.unparse(node.test) for one in ast.walk(node)}
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in types]
        names = {(f"{node.module}.{alias.name}", str(node.module)) for node in nodes for alias in node.names}
        imported[name] = {inner if inner in modules else outer for inner, outer in names} & modules.keys() - {name}
    assert len(imported) > 150
    # Raises CycleError, which names the circle.
    TopologicalSorter(imported).prepare()
