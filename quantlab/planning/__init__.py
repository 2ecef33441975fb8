"""Plan what a model needs before anything is downloaded: whether it fits, on how many GPUs, how fast it can
decode.

| file | what it holds |
|---|---|
| weights.py, stored.py, files.py | bytes of a checkpoint by method and width, of a release as it is stored, of all files |
| activations.py, calibration.yaml | constants that no formula gives, and the measurements that they come from |
| roofline.py | the decode ceiling on the catalogue's GPUs |
| plan.py | the records of a plan |
| rig.py, fit.py | `plan_model(config, ...)`: each variant on each set of GPUs, the largest context and batch, verdicts |
| parallel.py | whether GPUs can share each layer: heads, groups and blocks |
| recorded.py | the models that have records |
| serving.py | the commands that serve a checkpoint |
| against.py | predictions beside the records of real runs |
| plan_tables.py | a plan for a terminal |

Pure functions; nothing here imports torch. Bytes are bytes; GB is 10^9 and GiB is 2^30, and names say which.
"""
