"""YAML in which no key is given twice, of which PyYAML would keep the last one without an error."""

import re
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
    """Scalars are what PyYAML reads, and 1e-4 is a number too; a key twice is an error."""


class ValueDumper(yaml.SafeDumper):
    """Writes what `ValueLoader` reads as the same: a text such as 1e5 in quotation marks."""


# YAML 1.1, which PyYAML reads, demands a point and a sign in the exponent.
for _kind in (ValueLoader, ValueDumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
    )
