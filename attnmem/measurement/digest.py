"""A digest of code: of what is executed, so that words alone make no record stale."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest(files: Iterable[Path]) -> str:
    """A digest of what the code in ``files`` executes, wherever it stands in them.

    Docstrings, comments and imports do not change a number, and do not count; nor does the order
    of definitions, or the file that each is in.
    """
    code = sorted(
        repr(_executed(node))
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_said(node)
    )
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def _executed(node: Any) -> Any:
    """A syntax tree as nested lists, without strings that are statements, and what is not there.

    Fields that one version of Python has and another lacks are empty where they do not matter.
    """
    if isinstance(node, list):
        return [_executed(part) for part in node if not _is_said(part)]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    return [type(node).__name__, *((name, _executed(value)) for name, value in fields)]


def _is_said(node: Any) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
