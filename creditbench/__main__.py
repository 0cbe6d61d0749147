"""`python -m creditbench`: the command line."""

import sys

from creditbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
