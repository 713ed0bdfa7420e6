"""Who trains, who validates, who tests, and the gate that proves that nobody does two of these."""
