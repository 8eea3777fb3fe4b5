"""Property tests try the same examples in every run and have no deadline.

How fast a loaded machine is says nothing about the code, and a run fails for what was changed, not
for an example that nobody had drawn before. `TCPRISM_EXAMPLES=new` draws others.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "no deadline",
    deadline=None,
    derandomize=os.environ.get("TCPRISM_EXAMPLES") != "new",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("no deadline")
