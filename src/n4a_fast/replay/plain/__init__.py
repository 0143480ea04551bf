"""The plain path: a plan run operator by operator. The reference of every fast one."""
