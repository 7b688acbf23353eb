"""`python -m lapconsole`: the same as the `lapconsole` command."""

import sys

from lapconsole.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
