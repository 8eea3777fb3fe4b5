"""Property tests have no deadline: how fast a loaded machine is says nothing about the code.

All tests of the page share one browser.
"""

from hypothesis import settings

from .page import browser

__all__ = ["browser"]

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
