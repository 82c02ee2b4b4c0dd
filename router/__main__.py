"""`python -m router` is `pointsman`."""

import sys

from router.cli import main

sys.exit(main())
