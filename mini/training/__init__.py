"""How the weights of polyvec-mini are learned: reading first, then meaning, then one adapter a task."""
