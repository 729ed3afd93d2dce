"""Before anything is imported: one thread for maths, if nobody says otherwise. Tests run side by side and keep all processors
busy; a second thread would only wait for the first, by spinning. `tests.everywhere` says otherwise.
"""

import os

for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
