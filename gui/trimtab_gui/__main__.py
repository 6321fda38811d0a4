"""Starts the window: `python -m trimtab_gui`."""

import sys

from trimtab_gui.app import main

if __name__ == "__main__":
    sys.exit(main())
