"""The mutants, room by room."""
