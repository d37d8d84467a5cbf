"""The parts of tools/gpu_check.py: correctness on a device, its speed, and what the published study costs."""
