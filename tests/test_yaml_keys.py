from pathlib import Path

import pytest
import yaml

from boxless.config import read_yaml
from boxless.errors import BoxlessError
from boxless.yaml_keys import TextLoader, ValueLoader


@pytest.mark.parametrize("loader", [TextLoader, ValueLoader])
def test_a_key_given_twice_is_an_error_at_any_depth(loader):
    for text in ("a: 1\nb: 2\na: 3", "top: [{a: 1, a: 1}]", "{0: x, 0: y}"):
        with pytest.raises(ValueError, match="given twice"):
            yaml.load(text, Loader=loader)


def test_values_and_merged_keys_are_as_with_pyyaml():
    text = "base: &base {a: 1, b: no}\nown: {<<: *base, a: 2}\n"
    assert yaml.load(text, Loader=ValueLoader) == yaml.safe_load(text)
    assert yaml.load("{a: 010, b: no}", Loader=TextLoader) == {"a": "010", "b": "no"}


def test_settings_that_are_given_twice_are_named(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("training: {lr: 0.1, lr: 0.2}\n")
    with pytest.raises(BoxlessError, match=r"own\.yaml: not valid YAML \(lr given twice\)"):
        read_yaml(tmp_path / "own.yaml")
