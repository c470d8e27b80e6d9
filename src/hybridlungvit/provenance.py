"""Where a result comes from: code, packages, machine."""

import ast
import json
import platform
import subprocess
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
    if isinstance(entry, Path):
        tree = ast.parse(entry.read_text(encoding="utf-8"))
        parts[entry.name], waiting = _syntax(tree), _imports(tree)
    else:
        functions, waiting = _command(entry)
        parts |= functions
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


def _command(command: str) -> tuple[dict[str, str], set[str]]:
    """Syntax of a sub-command and of the functions that it calls, by name, and their imports."""
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    sources = {
        alias.asname or alias.name: _imports(ast.Module([node], []))
        for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    parts, imported, waiting = {}, set(), {command.replace("-", "_")}
    while waiting:
        function = functions[waiting.pop()]
        parts[f"cli.{function.name}"] = _syntax(function)
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        imported |= _imports(function).union(*(sources[name] for name in used & sources.keys()))
        waiting |= {n for n in used & functions.keys() if f"cli.{n}" not in parts}
    return parts, imported


def _syntax(node: object) -> str:
    """A syntax tree as text: without positions, docstrings and fields that are empty."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return ""
        case list():
            return f"[{','.join(filter(None, map(_syntax, node)))}]"
        case ast.AST():
            fields = [
                f"{name}={_syntax(value)}"
                for name, value in ast.iter_fields(node)
                if name not in SKIPPED and value is not None and value != []
            ]
            return f"{type(node).__name__}({','.join(fields)})"
    return repr(node)


def _git(*arguments: str) -> str:
    """What git answers; empty where there is no git, no repository or no such object."""
    options = {"capture_output": True, "text": True, "errors": "replace", "timeout": 60}
    try:
        return subprocess.run(["git", *arguments], check=True, **options).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def code_commit() -> str:
    """The git commit of the source, with ``-dirty`` for uncommitted changes; or ``unknown``."""
    described = _git(
        "-C", str(PACKAGE), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"
    )
    return described.strip() or "unknown"


def committed_record(path: Path, revision: str = "HEAD") -> Record | None:
    """A JSON record as it stands in a git revision; None where there is none, or no git."""
    text = _git("show", f"{revision}:./{path.as_posix()}")
    try:
        return json.loads(text, object_hook=lambda values: Record(values, path))
    except ValueError:
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
