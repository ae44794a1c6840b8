"""What ``check`` says, found in the sources of the exercises, for the catalogue ``exercises``."""

import ast
from pathlib import Path


def texts(room: Path) -> list[str]:
    """Every text: constants of several words, what an answer is a number or a function of.

    Left out are docstrings, and what stands in a literal with values: no catalogue has that.
    """
    found: dict[str, None] = {}
    for path in sorted(room.glob("*.py")):
        nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
        left_out = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                left_out |= {id(part) for part in node.values}
        named = [node for node in nodes if isinstance(node, ast.keyword)]
        units = {id(keyword.value) for keyword in named if keyword.arg in ("unit", "argument")}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = id(node) in units or " " in node.value.strip()
                if said and node.value and id(node) not in left_out:
                    found[node.value] = None
    return [*found]
