"""Commands of the command line that have a module of their own; `boxless.cli` registers them."""
