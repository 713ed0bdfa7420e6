"""Networks: weights in, training, out-of-fold and ensemble predictions, locked choices."""
