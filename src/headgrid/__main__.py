"""``python -m headgrid`` and the ``headgrid`` command -> `headgrid.cli.main`."""


def main() -> None:
    """Run the command line."""
    # Imported late: a rendering process imports this module again, and needs nothing of it.
    from headgrid.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
