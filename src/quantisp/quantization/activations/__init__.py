"""Feature maps in integers: where quantizers stand, their ranges, and the simulated network."""
