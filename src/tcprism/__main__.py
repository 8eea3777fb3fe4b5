"""`python -m tcprism`.

That form has Python look into the current folder first. So that nothing more is imported from
there, it is forgotten at once; what Python itself has imported by now, only `python -I -m tcprism`
and the command `tcprism` take from elsewhere. Signals are held back as in bin/tcprism-python.
"""

import _signal  # type: ignore[import-not-found]
import sys

_signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM))
if not sys.flags.safe_path:
    del sys.path[0]

from tcprism.cli import main  # noqa: E402

main()
