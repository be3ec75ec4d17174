"""``cldistill eval`` and the end of a run: systems make pictures of effects, metrics measure them, a report says what came out.

From the outside in: `evaluate` is the evaluator, `end_of_run` hands it a run that has ended; `setup` and `systems` turn
``evaluate.systems`` into sampling, `pools` lists the items, `pictures` makes what `picture_store` lacks, `measure` asks the
metrics and keeps their answers, `aggregate` makes intervals of them, `report_json` and `report/` write them down.
"""
