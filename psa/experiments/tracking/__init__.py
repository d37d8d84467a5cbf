"""Optional trackers of finished trials: TensorBoard and MLflow. Off by default.

They receive the content of records, whichever backend made them. No result is read back from them, and their
failure stops no sweep. Whatever they have missed, of earlier sweeps too, they receive from the next sweep.
"""
