"""How image tags become boxes to train on: `recipe` has the steps in order."""
