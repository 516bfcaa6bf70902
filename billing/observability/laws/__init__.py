"""The laws in production: checked on a schedule, in bounded slices, a module each; `law_check` has how they stand."""
