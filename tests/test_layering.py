"""Rooms import downward only, and what needs neither torch nor numba loads neither.

The first half reads imports from the source of every file of the package, inside functions too. The second
half runs interpreters in which torch cannot be imported.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import dwindle

ROOT = Path(dwindle.__file__).parent

# From top to bottom. A room knows the rows below its own; what else it may know is in SAME_ROW.
ROWS = [
    {"__init__", "__main__"},
    {"cli"},
    {"report"},
    {"recipe", "phases", "pipeline", "outcome"},
    {"search"},
    {"checkpoints"},
    {"compression", "loading"},
    {"calibrate"},
    {"train"},
    {"bind"},
    {"prune", "share"},
    {"chains", "settings"},
    {"verify"},
    {"io"},
    {"models", "data"},
    {"file"},
    {"code"},
    {"kernels"},
    {"rounding"},
    {"records", "dtypes", "errors", "atomic", "checkout"},
]
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}
# Stages never import each other, nor do rooms of any row that is not named here.
SAME_ROW = [
    {"rounding"},
    {"records", "dtypes", "errors", "atomic", "checkout"},
    {"recipe", "phases", "pipeline", "outcome"},
]

WITHOUT_TORCH = {
    "records",
    "dtypes",
    "errors",
    "atomic",
    "kernels",
    "code",
    "file",
    "io",
    "verify",
    "settings",
}
TORCH_FILE = Path("io/torch_file.py")
ONNX = {"onnx", "google"}
NUMBA = {"numba", "llvmlite"}
# What `import dwindle` and `dwindle --help` do not load: the rooms in LAZY import it in functions only.
LAZY = {"__init__", "__main__", "cli"}
HEAVY = {"torch", "numpy", "matplotlib", *NUMBA}


class Import(NamedTuple):
    """One imported module or name, such as `dwindle.errors.CheckpointError`, and whether loading runs it."""

    name: str
    lazy: bool


def imports(tree: ast.AST, package: str, lazy: bool = False) -> Iterator[Import]:
    """All imports below `tree`; relative ones are resolved against `package`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: -node.level + 1 or None] if node.level else []
            base += [node.module] if node.module else []
            yield from (Import(".".join([*base, alias.name]), lazy) for alias in node.names)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from imports(node, package, lazy or function or checked)


def room(path: Path) -> str:
    """The room of a file, given its path inside the package."""
    return path.parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[Import]:
    package = ".".join(["dwindle", *path.parent.parts])
    return list(imports(ast.parse((ROOT / path).read_text("utf-8")), package))


def target(name: str) -> str | None:
    """The room an imported name lives in, or None where it is not of this package."""
    parts = name.split(".")
    if parts[0] != "dwindle":
        return None
    if len(parts) > 1 and ((ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").is_file()):
        return parts[1]
    return "__init__"


FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=str)


def test_all_files_are_found_and_belong_to_a_room():
    assert {Path("errors.py"), Path("kernels/__init__.py"), TORCH_FILE} <= set(FILES)
    assert {room(path) for path in FILES} <= set(RANK)


def test_imports_are_found_wherever_they_stand():
    source = """
import torch.nn
from dwindle import errors, records as r
from . import sibling
from ..code.bits import pack
if TYPE_CHECKING:
    import numba
class A:
    try:
        import json
    except ImportError:
        pass
    def f(self):
        from dwindle.io import read_checkpoint
"""
    assert list(imports(ast.parse(source), "dwindle.file")) == [
        ("torch.nn", False),
        ("dwindle.errors", False),
        ("dwindle.records", False),
        ("dwindle.file.sibling", False),
        ("dwindle.code.bits.pack", False),
        ("numba", True),
        ("json", False),
        ("dwindle.io.read_checkpoint", True),
    ]
    assert target("dwindle.io.read_checkpoint") == "io"
    assert target("dwindle.errors") == "errors"
    assert target("dwindle.__version__") == "__init__"
    assert target("torch.nn") is None


@every_file
def test_imports_point_downward(path):
    here = room(path)
    for name, _ in imports_of(path):
        there = target(name)
        # The version is the one word every room may take from the top.
        if there in (None, here) or name == "dwindle.__version__":
            continue
        together = any({here, there} <= row for row in SAME_ROW)
        assert RANK[there] > RANK[here] or together, f"{path} imports {name}"


@every_file
def test_third_parties_stay_in_their_rooms(path):
    here = room(path)
    for name, lazy in imports_of(path):
        library = name.split(".")[0]
        if library == "torch":
            assert here not in WITHOUT_TORCH or path == TORCH_FILE, f"{path} imports {name}"
        if library in ONNX:
            # For their types; only onnx_file.py asks for what they do.
            where = here, path.name.partition("_")[0], lazy
            assert where == ("io", "onnx", True), f"{path} imports {name}"
        if library == "PIL":
            assert here == "data", f"{path} imports {name}"
        if library in NUMBA:
            assert here == "kernels", f"{path} imports {name}"
        if here in LAZY:
            assert lazy or library not in HEAVY, f"{path} imports {name} when it is loaded"
        if here == "kernels":
            known = {"numpy"} | NUMBA | sys.stdlib_module_names
            assert library in known or target(name) == "kernels", f"{path} imports {name}"
        if path != TORCH_FILE and here == "io" and target(name) == "io":
            assert lazy or "torch_file" not in name, f"{path} imports {name} when it is loaded"


def interpreter(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lower_rooms_work_where_torch_is_not_installed(tmp_path):
    modules = [
        ".".join(["dwindle", *path.with_suffix("").parts]).removesuffix(".__init__")
        for path in FILES
        if room(path) in WITHOUT_TORCH and path != TORCH_FILE
    ]
    assert len(modules) > 10
    interpreter(f"""
import importlib, sys
sys.modules["torch"] = sys.modules["onnx"] = None
for module in {modules}:
    importlib.import_module(module)
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Raw, same
record = Raw("bfloat16", (2,), b"abcd")
write_checkpoint({str(tmp_path / "x.safetensors")!r}, {{"w": record}})
assert same(read_checkpoint({str(tmp_path / "x.safetensors")!r}).records["w"], record)
""")


def test_importing_dwindle_loads_nothing_heavy():
    loaded = interpreter("import dwindle, sys; print(dwindle.__version__, *sys.modules)").split()
    assert "dwindle" in loaded
    assert not HEAVY & set(loaded)


COMMANDS = ("compress", "decompress", "inspect", "verify", "diff", "train", "evaluate", "sensitivity", "demo")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)])
def test_help_loads_nothing_heavy(arguments):
    code = f"""
import sys
from dwindle.cli import main
sys.argv = ["dwindle", *{arguments}]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print("LOADED", *sys.modules)
"""
    loaded = interpreter(code).split("LOADED")[1].split()
    assert "dwindle.cli" in loaded
    assert not HEAVY & set(loaded)


def test_importing_io_loads_neither_torch_nor_onnx():
    loaded = interpreter("import dwindle.io, sys; print(*sys.modules)").split()
    assert "dwindle.io.safetensors_file" in loaded
    assert not {"torch", "onnx", "google.protobuf"} & set(loaded)
