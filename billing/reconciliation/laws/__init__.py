"""The laws, a file each. Pure: what the books say goes in, what differs comes out."""
