"""Contract tests for parts of your own: one call each says whether a part keeps its promises.

`encoders.check_encoder`, `objectives.check_objective`, `features.check_feature` and
`labels.check_label` run all that holds for a part, by its name or as it is; a failure is an
AssertionError that says what was found and why it matters. Our own suite runs the same checks over
every part that comes with the package. Nothing here needs pytest.
"""
