"""``python -m lib_dumpunet`` is the command line."""

import sys

from lib_dumpunet.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
