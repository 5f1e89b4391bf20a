"""`Units`: the units that an axis of a weight numbers, and the axes that number the same units.

The outputs of one layer are the inputs of the next: both axes number the same units. Structured pruning calls
such axes coupled. An axis is more than a list of units after a reshape or a concatenation:

    Flatten of (7, 7, 64)        a product: 7 rows x 7 columns x 64 channels
    Dense(12 * 64), split        a product: 12 heads x 64 units of each
    concatenate of 32 and 64     parts side by side: 32 units, then 64

Two axes that meet in a sum, a product or a lookup number the same units, and what is known of one holds for
the other. `Node` is a union-find structure with these two ways to be made of others.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

__all__ = [
    "How",
    "Node",
    "Units",
    "concatenated",
    "grouped",
    "multiplied",
    "tear",
    "tell",
    "trailing",
    "unify",
    "within",
]

# Marks that hold for all that units are made of.
_OF_ALL = {"averaged", "torn", "turned"}
How: TypeAlias = Literal["", "product", "parts"]


@dataclasses.dataclass(frozen=True)
class Units:
    """The units of one axis.

    Attributes:
        key: Equal for axes that number the same units.
        size: Number of units.
        how: `product` of the units of `of`, the slowest first; `parts`, if those stand side by side; empty if
            the units are made of no others.
        of: The units that these are made of.
        marks: What else is known: `input` and `output` for units of the model's input and output; `rows` for
            rows that numbers of the input look up, and `positions` for rows that fixed numbers do; `mixed`
            for units that two signals are summed over, as queries and keys are; `averaged` for units over
            which a mean or maximum is taken; `loop` for units that come out of a loop of the backend; `torn`
            for units that meet others which are grouped in another way; `turned` for units that also stand in
            the reverse order.
        across: The operations that take all the units together and are no mean.
        numbers: The numbers that the units are added to or multiplied by.
    """

    key: int
    size: int
    how: How = ""
    of: tuple["Units", ...] = ()
    marks: frozenset[str] = frozenset()
    across: frozenset[str] = frozenset()
    numbers: frozenset[float] = frozenset()

    @property
    def parts(self) -> tuple["Units", ...]:
        """These units, and all that they are made of."""
        return (self, *(part for own in self.of for part in own.parts))


class Node:
    """Units of which more may be learned: they may turn out to be others, or to be made of others.

    Attributes:
        alias: The units that these have turned out to be; None if they stand for themselves.
    """

    def __init__(self, size: int, how: How = "", of: Sequence["Node"] = ()) -> None:
        self.size, self.how, self.of = size, how, tuple(of)
        self.marks: set[str] = set()
        self.across: set[str] = set()
        self.numbers: set[float] = set()
        self.alias: Node | None = None

    @property
    def root(self) -> "Node":
        """The node that stands for all that are known to be the same."""
        node = self
        while node.alias is not None:
            node = node.alias
        return node

    def become(self, other: "Node") -> None:
        """Says that these units are those of another root."""
        other.marks |= self.marks
        other.across |= self.across
        other.numbers |= self.numbers
        self.alias = other
        for part in within(other):
            part.across |= self.across
            part.marks |= self.marks & _OF_ALL

    def units(self) -> Units:
        """The units as they are known now."""
        root = self.root
        return Units(
            id(root),
            root.size,
            root.how,
            tuple(n.units() for n in root.of),
            frozenset(root.marks),
            frozenset(root.across),
            frozenset(root.numbers),
        )


def unify(one: Node, other: Node) -> None:
    """Says that two nodes are the same units. Nodes that cannot be the same stay apart."""
    one, other = one.root, other.root
    if one is other or one.size != other.size:
        return
    if not one.how or not other.how:
        first, second = (one, other) if not one.how else (other, one)
        if first not in within(second):
            first.become(second)
        return
    pairs = _pairs(one, other)
    if pairs is None:
        tear(one, other)
        return
    for first, second in pairs:
        unify(first, second)
    one, other = one.root, other.root
    same = one.how == other.how and [n.size for n in one.of] == [n.size for n in other.of]
    if same and one is not other and one not in within(other) and other not in within(one):
        one.become(other)


def _pairs(one: Node, other: Node) -> list[tuple[Node, Node]] | None:
    """Pairs what two nodes of the same units are made of; None if they are made in different ways."""
    if one.how == other.how and [n.size for n in one.of] == [n.size for n in other.of]:
        return list(zip(one.of, other.of, strict=True))
    if one.how == other.how == "parts":
        return None
    for node in (one, other):
        if node.how == "parts":
            _align(node, len(node.of))
    return _refined(_atoms(one), _atoms(other))


def within(node: Node) -> list[Node]:
    """Returns all nodes that a node is made of."""
    return [found for part in node.root.of for found in (part.root, *within(part))]


def tell(node: Node, across: str = "", mark: str = "") -> None:
    """Says of units, and of all that they are made of, what takes them together, or another mark."""
    for part in (node.root, *within(node)):
        part.across |= {across} - {""}
        part.marks |= {mark} - {""}


def tear(*nodes: Node) -> None:
    """Says of units that they meet others which are grouped in another way."""
    for node in nodes:
        tell(node, mark="torn")


def multiplied(nodes: Iterable[Node]) -> Node:
    """Returns the product of nodes, the slowest first. Nodes of one unit count for nothing."""
    atoms = [atom for node in nodes for atom in _atoms(node)]
    if len(atoms) == 1:
        return atoms[0]
    return Node(math.prod(atom.size for atom in atoms), "product" if atoms else "", atoms)


def concatenated(nodes: Sequence[Node]) -> Node:
    """Returns nodes side by side."""
    nodes = [node.root for node in nodes if node.size]
    return nodes[0] if len(nodes) == 1 else Node(sum(node.size for node in nodes), "parts", nodes)


def grouped(nodes: Iterable[Node], sizes: Sequence[int]) -> list[Node] | None:
    """Returns the nodes of a tensor's axes after a reshape; None if the sizes do not tell.

    Args:
        nodes: The nodes of the axes before.
        sizes: Sizes of the axes after.
    """
    left = [atom for node in nodes for atom in _atoms(node)]
    if math.prod(atom.size for atom in left) != math.prod(sizes):
        return None
    found = []
    for size in sizes:
        taken: list[Node] = []
        while size > 1:
            atom = left.pop(0)
            if size % atom.size == 0:
                taken.append(atom)
                size //= atom.size
                continue
            parts = _split(atom, size)
            if parts is None:
                return None
            taken.append(parts[0])
            left[:0] = parts[1:]
            size = 1
        found.append(multiplied(taken))
    return found


def trailing(node: Node, count: int) -> Node | None:
    """Returns the product of the last factors of a product, if those before have a number of units."""
    atoms, before = _atoms(node), 1
    while atoms and before < count:
        parts = [atoms[0]] if count % (before * atoms[0].size) == 0 else _split(atoms[0], count // before)
        if parts is None:
            return None
        before, atoms = before * parts[0].size, [*parts[1:], *atoms[1:]]
    return multiplied(atoms) if before == count else None


def _atoms(node: Node) -> list[Node]:
    """The nodes that a node is a product of, which are no products themselves."""
    node = node.root
    if node.how == "product":
        return [atom for part in node.of for atom in _atoms(part)]
    return [] if node.size == 1 else [node]


def _split(atom: Node, first: int) -> list[Node] | None:
    """Makes an atom a product, whose first factor has a size."""
    atom = atom.root
    if atom.how == "parts":
        _align(atom, first)
        return _atoms(atom) if atom.how == "product" else None
    if atom.size % first or atom.how:
        return None
    atom.how, atom.of = "product", (Node(first), Node(atom.size // first))
    for part in atom.of:
        part.marks |= atom.marks
        part.across |= atom.across
        part.numbers |= atom.numbers
    return list(atom.of)


def _align(node: Node, count: int) -> None:
    """Makes equal parts a product of their number and one of them: their units are picked the same way."""
    parts = [part.root for part in node.of]
    alike = len(parts) == count and len({part.size for part in parts}) == 1
    if alike and all(part.how == parts[0].how == "" for part in parts):
        for part in parts[1:]:
            unify(parts[0], part)
        node.how, node.of = "product", (Node(count), parts[0])


def _refined(one: list[Node], other: list[Node]) -> list[tuple[Node, Node]] | None:
    """Pairs the atoms of two products of the same units, after the larger were split where they can be."""
    pairs: list[tuple[Node, Node]] = []
    one, other = list(one), list(other)
    while one and other:
        first, second = one.pop(0), other.pop(0)
        if first.size != second.size:
            larger, queue, size = (
                (first, one, second.size) if first.size > second.size else (second, other, first.size)
            )
            parts = _split(larger, size)
            if parts is None:
                return None
            queue[:0] = parts[1:]
            first, second = (parts[0], second) if larger is first else (first, parts[0])
        pairs.append((first, second))
    return pairs
