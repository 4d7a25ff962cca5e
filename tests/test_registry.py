import pytest

from boxless.errors import BoxlessError
from boxless.registry import Registry


def test_a_decorator_adds_a_part_and_leaves_it_as_it_is():
    rules: Registry[object] = Registry("rule")

    @rules.register("largest")
    def largest() -> int:
        return 3

    assert largest() == 3
    assert rules.find("largest") is largest
    assert list(rules) == ["largest"]


def test_names_that_are_taken_or_unknown_are_refused():
    rules: Registry[int] = Registry("rule")
    rules.register("one")(1)
    rules.register("two")(2)
    with pytest.raises(BoxlessError, match="rule 'one' is registered already"):
        rules.register("one")(3)
    with pytest.raises(BoxlessError, match="rule 'three' is unknown; there are one, two"):
        rules.find("three")
