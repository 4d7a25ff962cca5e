"""How image tags become boxes to train on; `recipe` has the steps in order."""

from boxless.pseudo_labels.seeds import SEEDS

__all__ = ["SEEDS"]
