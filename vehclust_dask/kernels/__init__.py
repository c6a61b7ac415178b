"""Mathematics on one block: numpy and numba only, tested as plain functions."""
