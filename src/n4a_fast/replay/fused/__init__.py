"""Linear chains as weights: which operators are linear, how a chain is compiled, how it is applied."""
