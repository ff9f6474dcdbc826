"""Python source for what one policy decides: projections, conditions and the choice of a winner.

One straight-line function per policy is several times faster than walking a tree or calling a
closure a node. The text holds nothing but slot numbers and finite numbers of the policy: no name
or string of a configuration enters it. Additions run from left to right, as in the columnar form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.engine.slots import Slots
from agents.engine.tree import AND, NOT, Bounds, Branch, Fallback, Leaf, Mapping, Node, Ruleset, Term

_INDENT = "    "


def source_of(slots: Slots) -> str:
    """Return the source of ``choose(M, C, V, U, S, O)``, which returns the winner's number and confidence.

    M, C, V, U: matched, confidence, value, unknown by slot; S takes the scores in computing order, O the
    slots of the projections in order of publication. A winner of -1 is none.
    """
    writer = _Writer(slots)
    writer.projections()
    writer.unpack()
    writer.choose()
    body = "\n".join(_INDENT + line for line in writer.lines)
    return f"def choose(M, C, V, U, S, O):\n{body}\n"


def winners(ruleset: Ruleset) -> Iterator[tuple[int, ...]]:
    """Iterate over groups of rules, best first: the first group with a match has the winner.

    Within a group the highest confidence wins, the first on ties. For a policy with tiers this is the
    order where no matched decision has one; `tiers` is the other.
    """
    rules = ruleset.rules
    order = sorted(range(len(rules)), key=lambda i: (-rules[i].priority, rules[i].name.encode()))
    if ruleset.strategy == "priority":
        yield from _grouped(order, [rules[i].priority for i in order])
    elif order:
        yield tuple(order)


def tiers(ruleset: Ruleset) -> Iterator[tuple[int, ...]]:
    """Iterate over groups of rules where some matched decision has a tier, whatever the strategy."""
    rules, last = ruleset.rules, max((rule.tier for rule in ruleset.rules), default=0) + 1

    def tier(i: int) -> int:
        return last if ruleset.untiered_last and rules[i].tier == 0 else rules[i].tier

    order = sorted(range(len(rules)), key=lambda i: (tier(i), -rules[i].priority, rules[i].name.encode()))
    yield from _grouped(order, [tier(i) for i in order])


def _grouped(order: Sequence[int], ranks: Sequence[int]) -> Iterator[tuple[int, ...]]:
    group: list[int] = []
    for place, rule in enumerate(order):
        if group and ranks[place] != ranks[place - 1]:
            yield tuple(group)
            group = []
        group.append(rule)
    if group:
        yield tuple(group)


def within(bounds: Bounds, number: str) -> str:
    """Return the condition that *number*, a variable, is within *bounds*."""
    signs = ((">", bounds.gt), (">=", bounds.gte), ("<", bounds.lt), ("<=", bounds.lte))
    parts = [f"{number} {sign} {bound!r}" for sign, bound in signs if bound is not None]
    return " and ".join(parts) if parts else f"{number} == {number}"


class _Writer:
    """Collects the lines of one function."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.ruleset = slots.ruleset
        self.lines: list[str] = []
        self._variables = 0

    def _fresh(self) -> str:
        self._variables += 1
        return f"x{self._variables}"

    def projections(self) -> None:
        """Write the scores and what their mappings publish."""
        numbers = {score.name: f"s{i}" for i, score in enumerate(self.ruleset.scores)}
        for i, score in enumerate(self.ruleset.scores):
            self.lines.append(f"s{i} = 0.0")
            self.lines += [f"s{i} += {self._term(term, numbers)}" for term in score.terms]
            self.lines.append(f"S.append(s{i})")
            for mapping in self.ruleset.mappings_of(score.name):
                self._bands(mapping, f"s{i}")

    def _term(self, term: Term, scores: dict[str, str]) -> str:
        if term.source == "score":
            return f"{scores.get(term.key, '0.0')} * {term.weight!r}"
        slot = self.slots.index[term.key]
        if term.source in {"raw", "metric"}:
            return f"(V[{slot}] if V[{slot}] == V[{slot}] else 0.0) * {term.weight!r}"
        miss = term.miss * term.weight
        if term.source == "match":
            return f"({term.match * term.weight!r} if M[{slot}] else {miss!r})"
        recorded = f"(C[{slot}] if C[{slot}] > 0.0 else 1.0) * {term.weight!r}"
        return f"({recorded} if M[{slot}] else {miss!r})"

    def _bands(self, mapping: Mapping, score: str) -> None:
        for place, band in enumerate(mapping.bands):
            word = "if" if mapping.every or place == 0 else "elif"
            self.lines.append(f"{word} {within(band.bounds, score)}:")
            distances = [f"abs({score} - {bound!r})" for bound in band.bounds.given]
            distance = f"min({', '.join(distances)})" if len(distances) > 1 else (distances or ["0.0"])[0]
            slot = self.slots.index[band.key]
            self.lines.append(f"{_INDENT}M[{slot}] = True")
            self.lines.append(f"{_INDENT}C[{slot}] = 1.0 / (1.0 + exp({-mapping.slope!r} * {distance}))")
            self.lines.append(f"{_INDENT}O.append({slot})")

    def unpack(self) -> None:
        """Write the matched flags into local variables."""
        if self.slots.keys:
            self.lines.append(f"{''.join(f'm{i}, ' for i in range(len(self.slots.keys)))} = M")

    def choose(self) -> None:
        """Write the conditions of the decisions and the choice among them."""
        ruleset = self.ruleset
        groups = tuple(winners(ruleset))
        if not ruleset.tiered:
            # A group is evaluated only if none before it matched.
            for group in groups:
                self._pick(group, [self._decision(i) for i in group])
            self.lines.append("return -1, 0.0")
            return
        results = [self._decision(i) for i in range(len(ruleset.rules))]
        tiered = [f"{results[i]} is not None" for i, rule in enumerate(ruleset.rules) if rule.tier > 0]
        self.lines.append(f"if {' or '.join(tiered)}:")
        for group in tiers(ruleset):
            self._pick(group, [results[i] for i in group], _INDENT)
        for group in groups:
            self._pick(group, [results[i] for i in group])
        self.lines.append("return -1, 0.0")

    def _pick(self, group: Sequence[int], results: Sequence[str], indent: str = "") -> None:
        if len(group) == 1:
            self.lines.append(f"{indent}if {results[0]} is not None:")
            self.lines.append(f"{indent}{_INDENT}return {group[0]}, {results[0]}")
            return
        self.lines.append(f"{indent}b = None")
        for rule, result in zip(group, results, strict=True):
            self.lines.append(f"{indent}if {result} is not None and (b is None or {result} > b):")
            self.lines.append(f"{indent}{_INDENT}b = {result}; w = {rule}")
        self.lines.append(f"{indent}if b is not None:")
        self.lines.append(f"{indent}{_INDENT}return w, b")

    def _decision(self, rule: int) -> str:
        """Write decision *rule*; return the variable of its confidence, None where it does not match."""
        node = self.ruleset.rules[rule].node
        if isinstance(node, Fallback):
            found = self._fresh()
            self.lines.append(f"{found} = 0.0")
            return found
        if self.ruleset.strategy != "fuzzy":
            return self._value(node)
        degree, found = self._degree(node), self._fresh()
        self.lines.append(f"{found} = {degree} if {degree} >= {self.ruleset.threshold!r} else None")
        return found

    def _matches(self, leaf: Leaf) -> str:
        """Return the condition under which *leaf* matches."""
        slot = self.slots.index[leaf.key]
        if leaf.bounds is not None:
            number = self.slots.index[leaf.number]
            found = self._fresh()
            self.lines.append(f"{found} = V[{number}] if V[{number}] == V[{number}] else C[{number}]")
            held = within(leaf.bounds, found)
            if leaf.on_error_match or leaf.on_unknown == "match":
                return f"({held} or ({found} != {found} and U[{slot}]))"
            return f"({held})"
        names = [f"m{slot}", *(f"m{self.slots.index[other]}" for other in leaf.others)]
        if leaf.on_unknown == "match":
            names.append(f"U[{slot}]")
        return names[0] if len(names) == 1 else f"({' or '.join(names)})"

    def _certainty(self, leaf: Leaf) -> str:
        """Return the confidence of *leaf* where it matches."""
        if leaf.bounds is not None:
            return "1.0"
        slot = self.slots.index[leaf.key]
        recorded = f"(C[{slot}] if C[{slot}] == C[{slot}] else 1.0)"
        if leaf.on_unknown != "match":
            return recorded
        seen = " or ".join(f"m{self.slots.index[key]}" for key in (leaf.key, *leaf.others))
        unseen = "1.0" if self.ruleset.strategy == "fuzzy" else "0.0"
        return f"({recorded} if {seen} else {unseen})"

    def _value(self, node: Node) -> str:
        """Write *node*; return the variable of its confidence, None where it does not match."""
        found = self._fresh()
        if isinstance(node, Leaf):
            matches = self._matches(node)
            self.lines.append(f"{found} = {self._certainty(node)} if {matches} else None")
            return found
        children = node.children if isinstance(node, Branch) else ()
        operator = node.operator if isinstance(node, Branch) else AND
        parts = [self._part(child) for child in children]
        if operator == NOT:
            opposite = f"None if {parts[0][0]} else 1.0" if len(parts) == 1 else "None"
            self.lines.append(f"{found} = {opposite}")
        elif operator == AND:
            total = " + ".join(["0.0", *(confidence for _, confidence in parts)])
            matched = " and ".join(matches for matches, _ in parts)
            mean = f"({total}) / {len(parts)}.0 if {matched} else None" if parts else "0.0"
            self.lines.append(f"{found} = {mean}")
        else:
            self.lines.append(f"{found} = None")
            for matches, confidence in parts:
                self.lines.append(f"if {matches}:")
                self.lines.append(f"{_INDENT}c = {confidence}")
                self.lines.append(f"{_INDENT}if {found} is None or c > {found}: {found} = c")
        return found

    def _part(self, child: Node) -> tuple[str, str]:
        """Return when *child* matches and with what confidence, as expressions."""
        if isinstance(child, Leaf):
            return self._matches(child), self._certainty(child)
        variable = self._value(child)
        return f"{variable} is not None", variable

    def _degree(self, node: Node) -> str:
        """Write *node*; return the variable of its degree of truth, between 0 and 1."""
        found = self._fresh()
        if isinstance(node, Leaf):
            matches = self._matches(node)
            self.lines.append(f"{found} = {self._certainty(node)} if {matches} else 0.0")
            self.lines.append(f"{found} = 0.0 if {found} < 0.0 else 1.0 if {found} > 1.0 else {found}")
            return found
        children = [self._degree(child) for child in (node.children if isinstance(node, Branch) else ())]
        operator = node.operator if isinstance(node, Branch) else AND
        if operator == NOT:
            self.lines.append(f"{found} = {f'1.0 - {children[0]}' if len(children) == 1 else '0.0'}")
            return found
        sign, neutral = ("<", "1.0") if operator == AND else (">", "0.0")
        self.lines.append(f"{found} = {neutral}")
        self.lines += [f"if {child} {sign} {found}: {found} = {child}" for child in children]
        return found
