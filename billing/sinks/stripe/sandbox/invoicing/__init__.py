"""Invoices by the clock: a draft when a period ends, final after the grace, with the usage that was there by then."""
