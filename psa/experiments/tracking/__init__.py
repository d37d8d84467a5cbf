"""Optional trackers: TensorBoard, MLflow, Weights & Biases and trackio. Off by default.

They receive the progress of packs in training and the content of records, whichever backend made them. No
result is read back from them, and their failure stops no sweep. Finished trials that they have missed, of
earlier sweeps too, they receive from the next sweep.
"""
