"""What differs is corrected by a posting that is recorded, or by a rebuild; nothing is ever overwritten."""
