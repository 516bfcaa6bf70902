"""Random operations with faults: a real server that is killed, and loses, behind connections that are cut."""
