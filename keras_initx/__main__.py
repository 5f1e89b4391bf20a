"""`python -m keras_initx` is the command `initx`."""

import sys

from keras_initx.cli import main

if __name__ == "__main__":
    sys.exit(main())
