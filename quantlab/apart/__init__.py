"""Run in the interpreter of another environment, whose libraries cannot live beside quantlab's.

What stands here is imported there: it needs numpy and Python's own library alone, until a command is
obeyed."""
