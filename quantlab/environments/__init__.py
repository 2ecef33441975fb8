"""Check installed libraries, and name the commands that install missing ones."""
