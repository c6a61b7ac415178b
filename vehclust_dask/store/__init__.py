"""Files in and out: descriptor sources, path lists and everything that lies on storage."""
