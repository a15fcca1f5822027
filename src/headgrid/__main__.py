"""``python -m headgrid`` and the ``headgrid`` command -> `headgrid.cli`."""

from headgrid.cli import main

if __name__ == "__main__":
    main()
