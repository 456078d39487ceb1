"""``python -m gps_denied_inference`` is the command line ``gdi``."""

import sys

from gps_denied_inference.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
