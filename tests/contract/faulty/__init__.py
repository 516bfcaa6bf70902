"""Random operations with faults: buckets on a real server that is killed, and loses, behind connections that are cut."""
