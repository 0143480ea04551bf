"""scikit-learn on a store: a cross-validation or a search kept in one call, a stored chain as an estimator.

Splitting, fitting and scoring are scikit-learn's own; here is what of it is stored, and how it comes back.
"""
