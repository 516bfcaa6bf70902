"""The command line: `billing …` and `celery -A … billing …` are the same commands."""
