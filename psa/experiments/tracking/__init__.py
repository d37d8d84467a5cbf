"""Who else is told of finished trials, if a user wants: TensorBoard and MLflow. Off unless asked for.

They are told what stands in the records, whichever backend made them; nothing is read back from them, and
their failure stops no sweep. What they do not know yet, of earlier sweeps too, they are told by the next one.
"""
