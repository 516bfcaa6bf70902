"""An app of the project: reports on texts."""
