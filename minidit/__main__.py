"""`python -m minidit` is the command `minidit`."""

import sys

from minidit.cli import main

sys.exit(main())
