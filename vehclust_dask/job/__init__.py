"""What to compute, in which order, and what is already there: the job file and its execution."""
