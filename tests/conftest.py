"""What all tests stand on: one thread per process, no network, no dependence on the machine."""

import os

# Before torch is imported, here and in what tests start: threads of two workers on two cores would
# only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
