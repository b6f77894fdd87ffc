"""``python -m adit_model.cli`` is the command ``adit``."""

import sys

from adit_model.cli.main import main

sys.exit(main())
