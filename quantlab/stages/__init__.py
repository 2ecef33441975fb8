"""Run the stages: each reads files, returns a value and writes files; none calls another.

probe, prepare, convert, reference and report run once for a model or a machine; quantize, measure, diverge
and evaluate once for a cell, in a process of their own (`quantlab.stages.isolation`)."""
