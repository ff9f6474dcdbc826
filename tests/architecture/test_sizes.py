"""Files, functions and nesting stay small enough to be read in one go."""

import ast
from collections.abc import Iterator

from tests.architecture.repository import Source, sources

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
DEEPEST_NESTING = 3
SAYS_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
# A `with` brackets its block without adding a path through it.
BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.Try, ast.Match)


def functions(source: Source) -> Iterator[Function]:
    """Yield every function and method of a file."""
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def lines(function: Function) -> int:
    """Count a function's lines, docstring included and decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def nesting(node: ast.AST) -> int:
    """Return how deep blocks lie within each other below *node*; an `elif` is no deeper than its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        chained = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child) + (isinstance(child, BLOCKS) and not chained))
    return deepest


def test_no_file_is_too_long() -> None:
    """A file of more than 400 lines has more than one responsibility."""
    lengths = {str(source): len(source.text.splitlines()) for source in sources()}

    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_too_long() -> None:
    """A function of more than 60 lines does more than its name says."""
    lengths = {
        f"{source}:{function.lineno} {function.name}": lines(function)
        for source in sources()
        for function in functions(source)
    }

    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}


def test_no_function_is_nested_too_deeply() -> None:
    """Blocks lie at most three deep; a fourth level is a function that has no name yet."""
    depths = {
        f"{source}:{function.lineno} {function.name}": nesting(function)
        for source in sources()
        for function in functions(source)
    }

    assert {name: depth for name, depth in depths.items() if depth > DEEPEST_NESTING} == {}


def test_nesting_counts_blocks_and_not_branches() -> None:
    """The measure itself: an elif chain is one level, a block within a block is two."""
    chain = ast.parse("if a:\n  x\nelif b:\n  y\nelif c:\n  z")
    nested = ast.parse("for a in b:\n  if a:\n    x\n  else:\n    y")

    assert nesting(chain) == 1
    assert nesting(nested) == 2


def test_every_file_name_says_what_is_in_it() -> None:
    """utils, helpers, common, base and manager are names of drawers, not of things."""
    assert [str(source) for source in sources() if source.path.stem in SAYS_NOTHING] == []


def test_every_module_says_its_responsibility() -> None:
    """Every module opens with a docstring."""
    assert [str(source) for source in sources() if not ast.get_docstring(source.tree)] == []


def test_every_test_says_its_behaviour() -> None:
    """Every test has a docstring of one sentence."""
    silent = [
        f"{source}:{function.lineno}"
        for source in sources()
        for function in functions(source)
        if source.room == "tests" and function.name.startswith("test_") and not ast.get_docstring(function)
    ]

    assert silent == []
