"""The task event `task-billed`, for Flower and other monitors."""
