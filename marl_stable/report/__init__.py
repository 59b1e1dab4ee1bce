"""What a run shows: metrics.csv, TensorBoard, the terminal and animations. Imports neither torch nor TensorBoard."""
