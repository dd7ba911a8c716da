"""Labels of molecules with a bond stretched or squeezed (MIT); see README.md beside the files."""
