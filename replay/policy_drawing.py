"""How a policy decided, drawn as a tree for the terminal, from the same values as its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

Json = Mapping[str, Any]


def drawn(answer: Json) -> Tree:
    """Return the full answer of `replay.policy_eval.Judge` as a tree."""
    tree = Tree(Text(_headline(answer), style="bold"))
    models = ", ".join(answer["models"]) or "none"
    tree.add(Text(f"strategy {answer['strategy']}, models: {models}"))
    if answer["matched_rules"]:
        tree.add(Text(f"matched rules: {', '.join(answer['matched_rules'])}"))
    projection = answer["projection"]
    for name, score in projection["scores"].items():
        tree.add(Text(f"score {name} = {score:.6g}"))
    for name, confidence in projection["outputs"].items():
        tree.add(Text(f"projection {name}, confidence {confidence:.4g}"))
    for decision in answer["decisions"]:
        won = decision["name"] == answer["decision"]
        style = "green" if won else "" if decision["matched"] else "dim"
        text = f"{'won' if won else 'matched' if decision['matched'] else 'no match'}: {decision['name']}"
        _draw(tree.add(Text(text, style=style)), decision["tree"])
    return tree


def _headline(answer: Json) -> str:
    name = f"{answer['id']}: " if answer["id"] is not None else ""
    if "failed" in answer:
        return f"{name}the request fails: {answer['failed']}"
    if answer["decision"] is None:
        return f"{name}no decision matches"
    return f"{name}{answer['decision']}, confidence {answer['confidence']:.4g}"


def _draw(branch: Tree, node: Json) -> None:
    mark = ("?" if node.get("unknown") else "") + ("✓" if node["m"] else "" if node.get("unknown") else "✗")
    text = f"{mark} {node.get('leaf') or node['k']}, confidence {node['c']:.4g}"
    below = branch.add(Text(text, style="" if node["m"] else "dim"))
    for child in node.get("ch", ()):
        _draw(below, child)
