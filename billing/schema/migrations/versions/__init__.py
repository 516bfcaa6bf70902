"""One file per migration. None is edited after a release; expand, then contract."""
