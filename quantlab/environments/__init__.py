"""Check installed libraries, name the commands that install missing ones, and make environments for libraries
that cannot live beside the others."""
