"""Read YAML with PyYAML's safe loader, checked while nodes are composed, so that every refusal names its
line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from quantlab.parsing._text import DEEPEST, LONGEST_NUMBER, read_text, refused, trouble_with_text

YAML_BYTES = 2**20
"""People write recipes and lists of models of a few kB; PyYAML takes seconds for a megabyte."""
MOST_NODES = 200_000
"""Values of one file, each as often as an alias (`*name`) repeats it."""
_INT, _FLOAT, _DATE, _TEXT, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "str", "merge")
)
_TOO_DEEP = f"lists and mappings stand more than {DEEPEST} deep in one another, which no such file has"


class _RefusedYaml(yaml.YAMLError):
    """What a node is refused for."""

    def __init__(self, node: Node | yaml.Event, why: str, mend: str = "") -> None:
        super().__init__(why)
        self.line, self.why, self.mend = node.start_mark.line + 1 if node.start_mark else None, why, mend


class _Loader(yaml.SafeLoader):
    """The safe loader with bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._whole: dict[int, tuple[int, int]] = {}
        """By a finished node's id: how many values are in it, and how deep, its aliases written out."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event, is_alias = self.peek_event(), self.check_event(yaml.AliasEvent)
        if self._level >= DEEPEST and self.check_event(yaml.CollectionStartEvent):
            raise _RefusedYaml(event, _TOO_DEEP)
        self._level += 1
        node: Node | None = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if is_alias and id(node) not in self._whole:
            raise _RefusedYaml(
                event, "an alias stands for what it is itself a part of", "write the value out"
            )
        inner = [self._whole[id(each)] for each in _inner(node)]
        size, depth = 1 + sum(n for n, _ in inner), 1 + max((d for _, d in inner), default=-1)
        self._whole[id(node)] = size, depth
        if self._level + depth > DEEPEST:
            raise _RefusedYaml(event, _TOO_DEEP)
        if size > MOST_NODES:
            raise _RefusedYaml(
                event, f"it has more than {MOST_NODES:,} values, aliases written out, which no such file has"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag not in (_TEXT, _MERGE):
                raise _RefusedYaml(key, f"the key {_shown(key)} is not a text", "put it in quotes")
            if key.value in seen:
                raise _RefusedYaml(
                    key, f"the key {_shown(key)} stands twice in one mapping", "keep one of the two"
                )
            seen.add(key.value)
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if trouble := trouble_with_text(node.value):
            raise _RefusedYaml(node, f"it holds {trouble}", "take it out")
        if node.tag in _READ:
            self._check_value(node)
        return node

    def _check_value(self, node: ScalarNode) -> None:
        """Refuse a number or a date that is none, while its line is known."""
        if node.tag in (_INT, _FLOAT) and len(node.value) > LONGEST_NUMBER:
            raise _RefusedYaml(node, f"a number of {len(node.value)} characters is too long")
        try:
            value = _READ[node.tag](self, node)
        except (ValueError, OverflowError, AttributeError, LookupError):
            raise _RefusedYaml(
                node,
                f"{_shown(node)} cannot be read as a {'date' if node.tag == _DATE else 'number'}",
                "mend it, or put it in quotes",
            ) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise _RefusedYaml(node, f"{_shown(node)} is not finite", "write a finite number")


_READ = {
    _INT: yaml.SafeLoader.construct_yaml_int,
    _FLOAT: yaml.SafeLoader.construct_yaml_float,
    _DATE: yaml.SafeLoader.construct_yaml_timestamp,
}


def _inner(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, CollectionNode) else []


def _shown(node: Node) -> str:
    return f"{node.value!r:.80}" if isinstance(node, ScalarNode) else "that is a list or a mapping"


def read_yaml(path: Path, most_bytes: int = YAML_BYTES) -> Any:
    """A YAML file's value, None where it holds none. Raises QuantlabError."""
    return parse_yaml(read_text(path, most_bytes), str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text. Raises QuantlabError that names the origin and the line."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except _RefusedYaml as error:
        raise refused(origin, error.line, error.why, error.mend) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise refused(
            origin, mark.line + 1 if mark else None, f"it is not YAML: {error.problem or error.context}"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise refused(
            origin, line, f"it is not YAML: the character #x{error.character:04x} is not allowed"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, AttributeError, LookupError) as error:
        raise refused(origin, None, f"it is not YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()
