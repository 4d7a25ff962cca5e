"""YAML in which no key is given twice: PyYAML keeps the last one, without a word."""

from collections import Counter
from typing import Any

import yaml


class _UniqueKeys(yaml.constructor.BaseConstructor):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in counts.items() if count > 1]:
            raise ValueError(f"{', '.join(twice)} given twice")
        return dict(super().construct_mapping(node, deep))


class TextLoader(_UniqueKeys, yaml.BaseLoader):
    """All scalars are strings: `no` is the name of a class, not False, and 010 is not 8; a key twice is an error."""


class ValueLoader(_UniqueKeys, yaml.SafeLoader):
    """Scalars are what YAML says; a key twice is an error."""
