"""``cldistill eval``: systems make pictures of effects, metrics look at them, and a report says what came out.

`store` keeps pictures and reads them back lazily; `jobs` makes what is missing; `contestants` turns ``evaluate.systems``
into ways of making pictures; `measure` asks the metrics and keeps their answers; `found` and `report` make figures of them.
"""
