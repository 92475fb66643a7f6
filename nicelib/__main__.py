import sys

from nicelib.cli import main

sys.exit(main())
