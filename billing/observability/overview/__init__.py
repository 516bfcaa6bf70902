"""The state of a fleet as people and dashboards read it: bounded readings of what the parts hold."""
