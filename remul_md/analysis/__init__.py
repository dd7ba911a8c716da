"""Checks of a run: functions on arrays, classes over them for MDAnalysis, and a report.

`energy`, `rotation`, `momentum`, `structure` and `temperature` measure; `verdicts` judges; `trajectory` does all of it
for one file; `mdanalysis` (the only module that imports MDAnalysis) works on a Universe; `report` writes HTML and PNG.
"""
