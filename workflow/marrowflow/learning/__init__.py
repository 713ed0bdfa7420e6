"""Networks: weights in, training, out-of-fold and ensemble predictions, locked choices."""

import os

# Read once, when torch loads OpenMP, hence here. By default a thread that waits for the others spins; on a core that
# is shared with another job it spins that job's, and its own peer's, time away (measured: four times slower).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
