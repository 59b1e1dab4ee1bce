"""What runs in the virtual environments: one script per thing that is measured. Each imports its own library alone."""
