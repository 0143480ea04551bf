"""From a stored chain to a plan: which operators run, in which order, with which folds."""
