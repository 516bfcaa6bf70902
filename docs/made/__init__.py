"""What the documentation takes from the code while it is built: tables that nobody writes by hand."""
