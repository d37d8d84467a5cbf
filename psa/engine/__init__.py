"""The meta-loop on the device: perturb, train an epoch, evaluate, keep or discard, save."""
