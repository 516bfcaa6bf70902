"""One file for each way in: its law as a function of bytes, and its seeds, made of real values."""
