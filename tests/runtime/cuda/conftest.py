"""The tests in `inside/` need the stand-in libcuda as their process's own: `test_on_standin.py` starts that process."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("TOOLKIT_STANDIN") else ["inside"]
