"""Reports: pure functions of the one frame of psa.analysis.records_frame, one folder per study."""

from psa.core import process
from psa.reports.plotting import load_matplotlib

if process.is_owned():  # a notebook or a program keeps its own settings
    load_matplotlib()
