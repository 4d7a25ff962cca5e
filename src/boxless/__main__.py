"""The command line as a module: `python -m boxless`, and so `torchrun ... -m boxless`."""

from boxless.cli import main

if __name__ == "__main__":
    main()
