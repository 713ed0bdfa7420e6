# What a run says of itself: progress on the terminal, and the plan that `python -m marrowflow explain` words. No rules.

from marrowflow.watch.console import attach

attach(workflow, HOSPITALS)
