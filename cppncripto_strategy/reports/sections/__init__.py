"""The built-in sections of a run's report; `reports/section.py` names them in order."""
