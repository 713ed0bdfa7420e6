# How an external hospital differs from those that were developed on, and where the networks looked.
