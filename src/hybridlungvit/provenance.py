"""Where a result comes from: code, packages, machine."""

import ast
import json
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from hybridlungvit.io import Record, value_sha256

PACKAGE = Path(__file__).parent
RECORDED = (
    "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "scikit-learn", "scipy",
    "pandas", "pillow", "safetensors",
)  # fmt: skip
SKIPPED = ("ctx", "kind", "type_comment")  # fields that follow from the rest of the tree


def code_sha256(entry: str | Path) -> str:
    """Hash of all code behind a sub-command ("train") or a script (its path).

    It covers the function in ``cli.py`` and every module of the package that it imports, directly
    or not, so the readers of the config and the device too. Modules count as syntax trees without
    comments, docstrings and layout, the same in every supported Python. What they import from
    elsewhere is the business of ``environment_record``.
    """
    parts: dict[str, str] = {}
    waiting: set[str] = set()
    if isinstance(entry, Path):
        tree = ast.parse(entry.read_text(encoding="utf-8"))
        parts[entry.name], waiting = _syntax(tree), _imports(tree)
    else:
        for name, function, modules in _command(entry):
            parts[f"cli.{name}"] = function
            waiting |= modules
    while waiting:
        module = waiting.pop()
        parts[module], imported = _module(module)
        waiting |= imported - parts.keys()
    return value_sha256(parts)


@cache
def _module(name: str) -> tuple[str, frozenset[str]]:
    """The hash of a module's syntax and the modules of the package that it imports."""
    tree = ast.parse(_file(name).read_text(encoding="utf-8"))
    return value_sha256(_syntax(tree)), frozenset(_imports(tree))


def _file(module: str) -> Path:
    """Where a module of the package lies; the path need not exist."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(tree: ast.AST) -> set[str]:
    """The modules of the package that a piece of code imports, wherever in it."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE.name}."):
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            modules |= {name for name in names if _file(name).is_file()}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            modules |= {name for name in names if name.startswith(f"{PACKAGE.name}.")}
    return modules - {PACKAGE.name}  # it holds the version, which decides nothing


def _command(command: str) -> Iterator[tuple[str, str, set[str]]]:
    """Name, syntax and imported modules of a sub-command and of the functions that it calls."""
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    sources = {
        alias.asname or alias.name: _imports(ast.Module([node], []))
        for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    waiting, seen = {command.replace("-", "_")}, set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        function = functions[name]
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        imported = set().union(*(sources[name] for name in used & sources.keys()))
        yield name, _syntax(function), imported | _imports(function)
        waiting |= (used & functions.keys()) - seen


def _syntax(node: object) -> str:
    """A syntax tree as text: without positions, docstrings and fields that are empty."""
    if isinstance(node, list):
        return f"[{','.join(_syntax(item) for item in node if not _is_text(item))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_syntax(value)}"
        for name, value in ast.iter_fields(node)
        if name not in SKIPPED and value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _is_text(node: object) -> bool:
    """Whether a statement is a string and nothing else, as docstrings are."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def code_commit() -> str:
    """The git commit of the source, with ``-dirty`` for uncommitted changes; or ``unknown``."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def committed_record(path: Path, revision: str = "HEAD") -> Record | None:
    """A JSON record as it stands in a git revision; None where there is none, or no git."""
    command = ["git", "show", f"{revision}:./{path.as_posix()}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return json.loads(answer.stdout, object_hook=lambda values: Record(values, path))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def environment_record() -> dict[str, str | dict[str, str]]:
    """Python, platform and the versions of the packages that decide the numbers."""
    packages = {}
    for name in RECORDED:
        try:
            packages[name] = version(name)
        except ModuleNotFoundError:  # conda names its OpenCV package otherwise
            packages[name] = "unknown"
    return {"python": platform.python_version(), "system": platform.system(), "packages": packages}
