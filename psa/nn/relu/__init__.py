"""Networks of linear layers with ReLU alone, trained without autograd."""
