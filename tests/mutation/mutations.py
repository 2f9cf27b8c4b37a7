"""Lists the mutations of a module, and makes one of them. Runs in an environment with cosmic-ray.

python mutations.py FILE            a JSON line a mutation: {"operator", "occurrence", "line", "column"}
python mutations.py FILE OP N       the module's text with that mutation, on standard output
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

FROM_COSMIC_RAY = (
    "AddNot",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Add",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_Mod_Add",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceUnaryOperator_Delete_USub",
)


class DropCondition(Operator):
    """Drops one of several arguments of `.where(…)`, or of `and_(…)`: a filter that a query needs."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """One position for each argument."""
        for argument in self._arguments(node):
            yield argument.start_pos, argument.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Replace the argument by SQL's true."""
        argument = self._arguments(node)[index]
        place = node.children.index(argument)
        node.children[place] = parso.python.tree.Name(
            argument.get_first_leaf().prefix + "__import__('sqlalchemy').true()", argument.start_pos
        )
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        """None: the class is not registered as a plugin."""
        return ()

    @staticmethod
    def _arguments(node: Any) -> list[Any]:
        if node.type != "arglist":
            return []
        call = node.parent.get_first_leaf().get_previous_leaf()
        if call is None or call.value not in {"where", "and_"}:
            return []
        return [child for child in node.children if child.type not in {"operator", "argument"}]


class DropRaise(Operator):
    """Drops a `raise`: something wrong is let through."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """The position of the statement."""
        if node.type == "raise_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Replace it by `pass`."""
        return parso.python.tree.Keyword("pass", node.start_pos, node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple[()]:
        """None: the class is not registered as a plugin."""
        return ()


OWN: dict[str, type[Operator]] = {"DropCondition": DropCondition, "DropRaise": DropRaise}


def operator_of(name: str) -> Operator:
    """The operator with this name."""
    operator: Operator = OWN[name]() if name in OWN else get_operator(f"core/{name}")()
    return operator


def mutations_of(code: str) -> Iterator[dict[str, Any]]:
    """All mutations of a module, but for those of annotations, of what runs at import, and of checks by `zip`."""
    tree = get_ast(code)
    for name in (*FROM_COSMIC_RAY, *OWN):
        operator = operator_of(name)
        occurrence = 0
        for node in ast_nodes(tree):
            for start, _ in operator.mutation_positions(node):
                if _in_function(node) and not _is_strict_of_zip(node):
                    yield {"operator": name, "occurrence": occurrence, "line": start[0], "column": start[1]}
                occurrence += 1


def _in_function(node: Any) -> bool:
    """Whether a node is in the body of a function, rather than in its signature."""
    while node is not None:
        parent = node.parent
        if parent is not None and parent.type in {"funcdef", "lambdef"} and parent.children[-1] is node:
            return True
        node = parent
    return False


def _is_strict_of_zip(node: Any) -> bool:
    """Whether a node is the value of `zip(…, strict=True)`, which guards against mistakes of the code itself."""
    argument = node.parent
    if argument is None or argument.type != "argument" or getattr(argument.children[0], "value", "") != "strict":
        return False
    trailer = argument.parent if argument.parent.type == "trailer" else argument.parent.parent
    call = trailer.get_first_leaf().get_previous_leaf()
    return call is not None and call.value == "zip"


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    if len(sys.argv) == 2:
        for mutation in mutations_of(text):
            print(json.dumps(mutation))
    else:
        sys.stdout.write(mutate_code(text, operator_of(sys.argv[2]), int(sys.argv[3])) or "")
