"""Run the command line with ``python -m lib_dumpunet``."""

import sys

from lib_dumpunet.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
