"""`python -m openclaw_kernel` is the command line."""

import sys

from openclaw_kernel.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
