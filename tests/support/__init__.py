"""Models, tables and programs that several test files share."""
