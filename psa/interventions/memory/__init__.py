"""The hidden-state memory: entries made from hidden vectors in training, retrieved to change later ones."""
