"""Lets `python -m trimtab` be the command."""

import sys

from trimtab.cli import main

sys.exit(main())
