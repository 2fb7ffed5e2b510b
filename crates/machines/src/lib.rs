//! Local "EC2": a machine is a network namespace, a cgroup and an ekso node process.
