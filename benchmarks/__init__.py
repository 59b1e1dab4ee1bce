"""Scripts that measure: learning, ablations, speed, and the demo. Their tables are committed beside them."""
