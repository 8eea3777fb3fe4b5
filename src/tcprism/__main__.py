"""`python -m tcprism`.

That form has Python look into the current folder first. So that nothing more is imported from
there, it is forgotten at once; what Python itself has imported by now, only `python -P -m tcprism`
and the command `tcprism` take from elsewhere.
"""

import sys

if not sys.flags.safe_path:
    del sys.path[0]

from tcprism.cli import main

main()
