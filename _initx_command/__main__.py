"""`python -m _initx_command` is the command `initx`, for an environment without the script."""

import sys

from _initx_command import main

if __name__ == "__main__":
    sys.exit(main())
