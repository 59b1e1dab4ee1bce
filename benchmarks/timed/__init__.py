"""What `benchmarks.speed` measures, one kind of work a file: `learning`, `crowd`, `playing`, `starting`, `replay`."""
