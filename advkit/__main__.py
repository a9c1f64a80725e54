"""``python -m advkit`` is ``advkit``."""

from advkit.cli.app import main

main()
