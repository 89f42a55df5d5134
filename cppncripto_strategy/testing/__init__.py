"""Contract tests for parts of your own: one call each says whether a part keeps its promises.

`features.check_feature(feature)` runs all that holds for a feature; a failure is an AssertionError
that says what was found and why it matters. Our own suite runs the same checks over every part that
comes with the package. Nothing here needs pytest.
"""
